"""The call of a Stable Diffusion pipeline: names, defaults and results as in diffusers."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    TCDScheduler,
)
from diffusers.callbacks import SDCFGCutoffCallback

from instancediffusion import Box, Instance, InstanceAdapter, InstanceDiffusionPipeline, Scene
from instancediffusion.errors import FailureWarning, ModelError, PicturesError, SceneWarning, SettingsError
from tests.tiny import tiny_unet
from tests.tiny_pipeline import (
    disc,
    scene_of,
    tiny_pipeline,
    tiny_scheduler,
    tiny_text_encoder,
    tiny_tokenizer,
    tiny_vae,
)

FAST = {"num_inference_steps": 3, "guidance_scale": 2.0}
STOCK = {**FAST, "output_type": "latent", "return_dict": False}
TOLERANCE = {"rtol": 0, "atol": 1e-4}


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def components(folder, unet=None):
    tokenizer = tiny_tokenizer(folder)
    vae = tiny_vae()
    vae.register_to_config(shift_factor=None)  # Stable Diffusion pipelines know none
    return {
        "vae": vae,
        "text_encoder": tiny_text_encoder(len(tokenizer)),
        "tokenizer": tokenizer,
        "unet": unet or tiny_unet(),
        "scheduler": tiny_scheduler(),
        "safety_checker": None,
        "feature_extractor": None,
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A Stable Diffusion pipeline, and ours on a copy of it with an adapter that does nothing yet."""
    stock = StableDiffusionPipeline(**components(tmp_path_factory.mktemp("tokenizer")), requires_safety_checker=False)
    ours = InstanceDiffusionPipeline(
        **{**stock.components, "unet": tiny_unet()},
        adapter=InstanceAdapter.for_unet(tiny_unet(), token_dim=24, caption_dim=32, hidden_dim=40),
    )
    for pipeline in (stock, ours):
        pipeline.set_progress_bar_config(disable=True)
    return stock, ours


def embedded(pipe, text):
    with torch.no_grad():
        return pipe.encode_prompt(text, "cpu", 1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda _: {"prompt": "a cat", "generator": torch.Generator().manual_seed(3)},
        lambda _: {"prompt": ["a cat", "a dog"], "generator": torch.Generator().manual_seed(3)},
        lambda _: {"prompt": ["a cat", "a dog"], "negative_prompt": ["red", "blur"], "generator": generators(4, 5)},
        lambda _: {"prompt": "a cat", "num_images_per_prompt": 2, "generator": generators(4, 5)},
        lambda _: {"prompt": "a cat", "guidance_rescale": 0.7, "generator": generators(1), "negative_prompt": "x"},
        lambda _: {"prompt": "a cat", "guidance_scale": 0.5, "generator": generators(1)},
        lambda _: {"prompt": "", "height": 64, "width": 32, "generator": generators(1)},
        lambda pipe: {
            "prompt_embeds": torch.cat([embedded(pipe, "a cat")[0], embedded(pipe, "a dog")[0]]),
            "negative_prompt_embeds": torch.cat([embedded(pipe, "blur")[0]] * 2),
            "num_images_per_prompt": 2,
            "generator": generators(1, 2, 3, 4),
        },
    ],
)
def test_an_adapter_that_does_nothing_leaves_a_stable_diffusion_pipeline(both, arguments):
    stock, ours = both
    expected = stock(**{**STOCK, **arguments(stock)})[0]
    torch.testing.assert_close(ours(**{**STOCK, **arguments(stock)})[0], expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        (DDIMScheduler, {"eta": 0.7}),
        (TCDScheduler, {}),
        (TCDScheduler, {"timesteps": [900, 500, 100]}),
        (LCMScheduler, {"guidance_scale": 1.0}),
        (EulerAncestralDiscreteScheduler, {}),
        (EulerDiscreteScheduler, {"sigmas": [14.6, 3.0, 0.5, 0.0]}),
        (EulerDiscreteScheduler, {"timesteps": [999, 400, 20]}),
    ],
)
def test_noise_and_steps_are_those_of_diffusers(both, scheduler, options):
    """Two images that draw from one generator: the noise of the steps, too."""
    results = []
    for pipeline in both:
        own = pipeline.scheduler
        pipeline.scheduler = scheduler.from_config(own.config)
        call = {"prompt": ["a cat", "a dog"], "generator": torch.Generator().manual_seed(2), **STOCK, **options}
        results.append(pipeline(**call)[0])
        pipeline.scheduler = own
    torch.testing.assert_close(*results, **TOLERANCE)


def test_from_pipe_and_from_the_components_of_another(both):
    stock, _ = both
    fresh = InstanceAdapter.for_unet(stock.unet, token_dim=24, caption_dim=32, hidden_dim=40)
    ours = InstanceDiffusionPipeline.from_pipe(stock, adapter=fresh)
    ours.set_progress_bar_config(disable=True)
    call = {**STOCK, "prompt": "a cat"}
    expected = stock(**call, generator=generators(1))[0]
    torch.testing.assert_close(ours(**call, generator=generators(1))[0], expected, **TOLERANCE)
    assert ours.unet is stock.unet
    back = StableDiffusionPipeline.from_pipe(ours)
    back.set_progress_bar_config(disable=True)
    assert torch.equal(back(**call, generator=generators(1))[0], expected)
    fresh.remove()


def test_a_scheduler_from_the_config_of_ours_does_not_clip(pipe):
    """Stable Diffusion's own scheduler is PNDM, whose config says nothing of clipping, and DDIM clips unless told."""
    named = pipe(scene_of(2), seed=0, scheduler="ddim", **FAST).latents
    other = InstanceDiffusionPipeline(**pipe.components)
    other.set_progress_bar_config(disable=True)
    other.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    assert other.scheduler.config.clip_sample is False
    assert torch.equal(other(scene_of(2), seed=0, **FAST).latents, named)
    other.scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
    assert DDIMScheduler.from_config(other.scheduler.config).config.clip_sample is False


def test_prompt_and_instances_are_a_scene(pipe):
    scene = scene_of(3)
    expected = pipe(scene, seed=1, **FAST).latents
    spoken = pipe("some things", instances=scene.instances, seed=1, negative_prompt="blur", **FAST)
    torch.testing.assert_close(spoken.latents, expected, **TOLERANCE)
    assert spoken.scenes[0].instances == scene.instances
    several = pipe(
        prompt=["x", "some things"],
        instances=[scene.instances[:1], scene.instances],
        negative_prompt=["", "blur"],
        seed=1,
        **FAST,
    )
    torch.testing.assert_close(several.latents[1], expected[0], **TOLERANCE)
    masked = pipe("x", instances=[Instance("a disc", mask=disc(48))], seed=0, height=32, width=32, **FAST)
    assert masked.scenes[0].height == 48 and masked.images[0].size == (32, 32)


def test_encoded_prompts_take_the_place_of_a_scenes_own(pipe):
    scene = scene_of(2)
    prompt, nothing = embedded(pipe, scene.prompt)[0], embedded(pipe, "blur")[0]
    other = Scene("not this", scene.instances, scene.width, scene.height)
    got = pipe(other, seed=0, prompt_embeds=prompt, negative_prompt_embeds=nothing, **FAST).latents
    torch.testing.assert_close(got, pipe(scene, seed=0, **FAST).latents, **TOLERANCE)


def test_a_negative_prompt_for_each_image(pipe):
    scene = scene_of(1)
    each = pipe(scene, seed=[3, 3], negative_prompt=["red", "dark"], **FAST).latents
    for row, text in enumerate(("red", "dark")):
        alone = pipe(scene, seed=3, negative_prompt=text, **FAST).latents
        torch.testing.assert_close(each[row : row + 1], alone, **TOLERANCE)
    assert (each[0] - each[1]).abs().max() > 1e-3


def test_long_prompts_beside_short_ones(pipe):
    """Calls hold prompts of different lengths; a shorter one is as it is alone."""
    long = Scene("one two three four five six seven eight nine ten", scene_of(1).instances, 64, 64)
    together = pipe([long, scene_of(2)], seed=0, **FAST).latents
    for row, scene in enumerate((long, scene_of(2))):
        torch.testing.assert_close(together[row], pipe(scene, seed=0, **FAST).latents[0], **TOLERANCE)
    short = pipe(Scene("one two three four five", long.instances, 64, 64), seed=0, **FAST).latents
    assert (together[0] - short[0]).abs().max() > 1e-3  # what comes after the first window counts


def test_output_types(pipe):
    images = {kind: pipe(scene_of(1), seed=[0, 1], output_type=kind, **FAST)[0] for kind in ("pil", "np", "pt")}
    assert images["np"].shape == (2, 64, 64, 3) and images["pt"].shape == (2, 3, 64, 64)
    np.testing.assert_allclose(images["np"], images["pt"].permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(np.asarray(images["pil"][1]) / 255, images["np"][1], atol=0.51 / 255)
    mixed = pipe([scene_of(1), scene_of(1, 128, 64)], seed=0, output_type="np", **FAST).images
    assert [image.shape for image in mixed] == [(64, 64, 3), (48, 88, 3)]
    assert pipe(scene_of(1), seed=0, return_dict=False, **FAST)[1] is None


def test_a_generator_is_advanced_and_a_seed_is_not_mixed_with_it(pipe):
    generator = torch.Generator().manual_seed(8)
    first, second = (pipe(scene_of(1), generator=generator, **FAST) for _ in range(2))
    assert first.seeds == (8,)
    assert (first.latents - second.latents).abs().max() > 1e-2
    again = pipe(scene_of(1), generator=generators(8), **FAST)
    assert torch.equal(first.latents, again.latents)
    torch.testing.assert_close(again.latents, pipe(scene_of(1), seed=8, **FAST).latents, **TOLERANCE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "scene: give a Scene"),
        ({"scene": scene_of(1), "prompt": "a"}, "prompt: a scene is given"),
        ({"scene": scene_of(1), "instances": []}, "instances: a scene is given"),
        ({"prompt": "a", "prompt_embeds": torch.zeros(1, 24, 32)}, "prompt_embeds: a prompt is given"),
        ({"prompt_embeds": torch.zeros(1, 24, 16)}, "give (1, tokens, 32) here"),
        ({"prompt": "a", "pag_scale": 3.0}, "pag_scale: perturbed-attention guidance is not offered"),
        ({"prompt": "a", "guess_mode": False}, "guess_mode: a ControlNet without a prompt is not offered"),
        ({"prompt": ["a", "b"], "instances": [[]]}, "instances: 1 lists for 2 prompts"),
        ({"prompt": "a", "instances": ["a cat"]}, "instances: give a list of Instance"),
        ({"prompt": ["a", "b"], "negative_prompt": ["a", "b", "c"]}, "negative_prompt: 3 for 2 scenes"),
        ({"prompt": "a", "generator": generators(1, 2)}, "generator: 2 for 1 images"),
        ({"prompt": "a", "generator": torch.Generator(), "seed": 1}, "generator: a seed is given"),
        ({"prompt": "a", "num_inferense_steps": None}, "did you mean 'num_inference_steps'"),
        ({"prompt": "a", "negative_promt": None}, "did you mean 'negative_prompt'"),
        ({"prompt": "a", "output_tipe": None}, "did you mean 'output_type'"),
        ({"prompt": "a", "callback_on_step_end_tensor_inputs": ["noise"]}, "'noise' is not one of latents"),
        ({"prompt": "a", "timesteps": [900, 100]}, "timesteps: PNDMScheduler takes none"),
        ({"prompt": "a", "timesteps": [100, 900], "scheduler": "euler"}, "that fall"),
        ({"prompt": "a", "timesteps": [9, 1], "sigmas": [1.0, 0.0]}, "sigmas are given, too"),
        ({"prompt": "a", "ip_adapter_image": np.zeros((8, 8, 3))}, "no IP-Adapter"),
        ({"prompt": "a", "eta": 2}, "eta: 2 is not a number from 0 to 1"),
        ({"prompt": "a", "num_images_per_prompt": 0}, "num_images_per_prompt: 0"),
    ],
)
def test_arguments_are_checked(pipe, arguments, message):
    with pytest.raises(SettingsError) as caught:
        pipe(**arguments)
    assert message in str(caught.value)


def test_diffusers_cutoff_of_guidance(pipe):
    """After the cutoff only the conditional half runs, and each of several images keeps its own prompt."""
    scenes = [scene_of(1), Scene("other", scene_of(2).instances, 64, 64)]
    options = {"num_inference_steps": 4, "guidance_scale": 3.0, "mis_fraction": 0.0}
    cut = pipe(
        scenes, seed=0, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1), **options
    )
    assert cut.network_rows == 2 * (2 * 3 + 2)  # plms calls twice in the first step
    for row, scene in enumerate(scenes):
        alone = pipe(
            scene,
            seed=0,
            callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1),
            **options,
        )
        torch.testing.assert_close(cut.latents[row], alone.latents[0], **TOLERANCE)


def test_a_callback_changes_prompts(pipe):
    """Prompts that a callback returns are those of the steps that follow."""
    target = embedded(pipe, "dark night")[0]

    def swap(pipeline, step, timestep, tensors):
        assert set(tensors) == {"latents", "prompt_embeds", "negative_prompt_embeds"}
        assert tensors["prompt_embeds"].shape == (2, 24, 32)
        negative, _ = tensors["prompt_embeds"].chunk(2)
        return {"prompt_embeds": torch.cat([negative, target])} if step == 0 else {}

    names = pipe._callback_tensor_inputs
    call = {"seed": 0, "mis_fraction": 0.0, "scheduler": "ddim", **FAST}
    changed = pipe(scene_of(1), callback_on_step_end=swap, callback_on_step_end_tensor_inputs=names, **call)
    same = pipe(
        scene_of(1),
        callback_on_step_end=lambda p, s, t, tensors: tensors,
        callback_on_step_end_tensor_inputs=names,
        **call,
    )
    plain = pipe(scene_of(1), **call).latents
    assert torch.equal(same.latents, plain)
    assert (changed.latents - plain).abs().max() > 1e-3


def test_handing_back_what_it_got_keeps_the_schedulers_history(pipe):
    call = {"seed": 0, "scheduler": "unipc", **FAST}
    same = pipe(scene_of(1), callback_on_step_end=lambda p, s, t, tensors: tensors, **call)
    assert torch.equal(same.latents, pipe(scene_of(1), **call).latents)


def test_one_picture_that_fails_takes_no_others_with_it(pipe):
    bad = torch.full((4, 16, 16), torch.nan)
    good = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(1))
    with pytest.warns(FailureWarning, match="seed 6.*float32 or bfloat16"):
        out = pipe(scene_of(2), seed=[5, 6, 7], latents=[good, bad, good], preview=lambda *_: None, **FAST)
    assert list(out.failures) == [1] and out.images[1] is None
    alone = pipe(scene_of(2), seed=5, latents=[good], **FAST)
    assert np.abs(np.asarray(out.images[2]).astype(int) - np.asarray(alone.images[0])).max() <= 1
    with pytest.warns(FailureWarning):
        array = pipe(scene_of(2), seed=[5, 6], latents=[good, bad], output_type="np", **FAST).images
    assert np.isnan(array[1]).all() and np.isfinite(array[0]).all()
    with pytest.raises(PicturesError, match="float32 or bfloat16"):
        pipe(scene_of(1), seed=0, latents=[bad], **FAST)


def test_skipped_layers_are_those_of_prompts(both):
    """Hidden states before the last layer, under the final norm; negative prompts skip none, as in diffusers."""
    _, ours = both
    ids = ours.tokenizer("a cat", padding="max_length", max_length=24, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        inner = ours.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
        expected = ours.text_encoder.final_layer_norm(inner)
        prompt, nothing = ours.encode_prompt("a cat", "cpu", 1, True, clip_skip=1)
    torch.testing.assert_close(prompt, expected)
    assert torch.equal(nothing, embedded(ours, "")[0])
    call = {**STOCK, "seed": 0}
    by_hand = ours(prompt_embeds=expected, **call)[0]
    torch.testing.assert_close(ours("a cat", clip_skip=1, **call)[0], by_hand, **TOLERANCE)
    with pytest.raises(ModelError, match="clip_skip: 2 leaves none"):
        ours("a cat", clip_skip=2, **call)


def test_without_a_text_encoder(both):
    _, ours = both
    prompt, nothing = embedded(ours, "a cat")
    mute = InstanceDiffusionPipeline(**{**ours.components, "text_encoder": None, "tokenizer": None})
    mute.set_progress_bar_config(disable=True)
    call = {**STOCK, "seed": 0}
    expected = ours(prompt="a cat", **call)[0]
    got = mute(prompt_embeds=prompt, negative_prompt_embeds=nothing, **call)[0]
    torch.testing.assert_close(got, expected, **TOLERANCE)
    for options in ({"prompt": "a"}, {"prompt_embeds": prompt}, {"scene": scene_of(1), "prompt_embeds": prompt}):
        with pytest.raises(ModelError, match="text_encoder: there is none"):
            mute(**call, **options)


def test_the_safety_checker_sees_each_picture(tmp_path):
    class Checker(torch.nn.Module):
        """Takes every second picture that it is shown for unsafe."""

        seen, device, dtype = 0, torch.device("cpu"), torch.float32

        def forward(self, images, clip_input):
            Checker.seen += 1
            unsafe = [Checker.seen % 2 == 0] * len(images)
            for row, flag in enumerate(unsafe):
                if flag:
                    images[row] = torch.zeros_like(images[row])
            return images, unsafe

    class Features(dict):
        def to(self, device):
            self.pixel_values = torch.zeros(1, 3, 8, 8)
            return self

    ours = tiny_pipeline(tmp_path)
    checked = tiny_pipeline(tmp_path)
    checked.safety_checker, checked.feature_extractor = Checker(), lambda images, return_tensors: Features()
    out = checked(scene_of(1), seed=[0, 1], **FAST)
    assert out.nsfw_content_detected == [False, True]
    plain = ours(scene_of(1), seed=[0, 1], **FAST).images
    assert np.array_equal(out.images[0], plain[0])
    assert not np.asarray(out.images[1]).any()


def test_a_distilled_unet_is_given_the_guidance_scale(tmp_path):
    stock = StableDiffusionPipeline(
        **components(tmp_path, tiny_unet(time_cond_proj_dim=8)), requires_safety_checker=False
    )
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = LCMScheduler.from_config(stock.scheduler.config)
    call = {**STOCK, "prompt": "a cat", "guidance_scale": 6.0}
    expected = stock(**call, generator=generators(1))[0]
    fresh = InstanceAdapter.for_unet(stock.unet, token_dim=24, caption_dim=32, hidden_dim=40)
    ours = InstanceDiffusionPipeline(**stock.components, adapter=fresh)
    ours.set_progress_bar_config(disable=True)
    torch.testing.assert_close(ours(**call, generator=generators(1))[0], expected, **TOLERANCE)


def test_weights_and_foreign_syntax_in_scenes(pipe):
    place = Box(0.1, 0.1, 0.6, 0.6)
    call = {"seed": 0, **FAST}
    plain = pipe(Scene("x", (Instance("a red balloon", box=place),), 64, 64), **call).latents
    strong = pipe(Scene("x", (Instance("(a red balloon:1.5)", box=place),), 64, 64), **call).latents
    assert (strong - plain).abs().max() > 1e-3
    with pytest.warns(SceneWarning, match="choices such as"):
        pipe(Scene("x", (Instance("{a cat|a dog}", box=place),), 64, 64), **call)


def test_the_parts_without_the_adapter_make_a_stock_pipeline(pipe):
    parts = {name: part for name, part in pipe.components.items() if name != "adapter"}
    stock = StableDiffusionPipeline(**parts)
    assert set(stock.components) == set(parts)
