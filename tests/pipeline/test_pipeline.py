import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from instancediffusion import Box, Instance, Scene
from instancediffusion.errors import ModelError, SceneWarning, SettingsError, SettingsWarning
from instancediffusion.pipeline import GenerationSettings, InstanceDiffusionPipeline
from instancediffusion.pipeline.decoding import decode_latents
from tests.sampling.toys import KINDS
from tests.tiny_pipeline import disc, scene_of, tiny_pipeline, tiny_vae

FAST = {"num_inference_steps": 3, "guidance_scale": 2.0}
TOLERANCE = {"rtol": 0, "atol": 1e-4}


def pixels(image):
    return np.asarray(image).astype(int)


def test_pictures_latents_seeds_and_timings(pipe):
    out = pipe(scene_of(2), seed=[3, 5], **FAST)
    assert [image.size for image in out.images] == [(64, 64), (64, 64)]
    assert out.latents.shape == (2, 4, 16, 16)
    assert out.seeds == (3, 5)
    assert set(out.timings) == {"text", "grounding", "sampling", "decoding", "total"}
    assert not out.interrupted
    assert (pixels(out.images[0]) != pixels(out.images[1])).mean() > 0.5
    out.latents.requires_grad_()  # not an inference tensor


def test_image_k_of_any_batch_equals_image_k_alone(pipe):
    """Different scenes, numbers of instances, shapes and seeds in one call; bounded rows that cut across images."""
    scenes = [scene_of(3), scene_of(0), scene_of(1, 128, 64), scene_of(4)]
    together = pipe(scenes, seed=[7, 8], max_batch_rows=5, **FAST)
    assert [image.size for image in together.images] == [(64, 64)] * 4 + [(88, 48)] * 2 + [(64, 64)] * 2
    for index in (0, 3, 4, 7):
        alone = pipe(scenes[index // 2], seed=7 + index % 2, **FAST)
        torch.testing.assert_close(together.latents[index], alone.latents[0], **TOLERANCE)
        assert np.abs(pixels(together.images[index]) - pixels(alone.images[0])).max() <= 1


def test_permuting_instances_changes_nothing(pipe):
    scene = scene_of(4)
    shuffled = replace(scene, instances=tuple(scene.instances[i] for i in (2, 0, 3, 1)))
    for merge in ("mean", "crop"):
        options = {**FAST, "mis_merge": merge, "mis_fraction": 0.7}
        torch.testing.assert_close(
            pipe(scene, seed=0, **options).latents, pipe(shuffled, seed=0, **options).latents, **TOLERANCE
        )


def test_neighbours_in_the_batch_are_no_absent_instances(pipe):
    """A scene beside one with more instances is padded with empty slots, which must not count."""
    small, large = scene_of(1), scene_of(4)
    masked = Scene("x", (Instance("a disc", mask=disc()),), 64, 64)
    beside = pipe([small, large, masked], seed=0, **FAST).latents
    for row, scene in enumerate((small, large, masked)):
        torch.testing.assert_close(beside[row], pipe(scene, seed=0, **FAST).latents[0], **TOLERANCE)


def test_every_instance_and_setting_counts(pipe):
    scene = scene_of(2)
    base = pipe(scene, seed=0, **FAST).latents
    moved = replace(scene, instances=(replace(scene.instances[0], box=Box(0.5, 0.5, 1.0, 1.0)), scene.instances[1]))
    renamed = replace(scene, instances=(replace(scene.instances[0], caption="a blue cat"), scene.instances[1]))
    cases = {
        "seed": pipe(scene, seed=1, **FAST),
        "place": pipe(moved, seed=0, **FAST),
        "caption": pipe(renamed, seed=0, **FAST),
        "prompt": pipe(replace(scene, prompt="other"), seed=0, **FAST),
        "grounding_fraction": pipe(scene, seed=0, grounding_fraction=0.0, **FAST),
        "mis_fraction": pipe(scene, seed=0, mis_fraction=0.0, **FAST),
        "mis_merge": pipe(scene, seed=0, mis_merge="crop", **FAST),
        "guidance_scale": pipe(scene, seed=0, **{**FAST, "guidance_scale": 1.0}),
        "negative_prompt": pipe(scene, seed=0, negative_prompt="dark", **FAST),
        "instance_mask": pipe(scene, seed=0, instance_mask="full", **FAST),
        "scheduler": pipe(scene, seed=0, scheduler="ddim", **FAST),
    }
    for name, out in cases.items():
        assert (out.latents - base).abs().max() > 1e-3, name


def test_the_negative_prompt_of_a_scene_is_used_and_overridden(pipe):
    own = scene_of(1)
    without = replace(own, negative_prompt=None)
    said = pipe(without, seed=0, negative_prompt="blur", **FAST).latents
    torch.testing.assert_close(pipe(own, seed=0, **FAST).latents, said, **TOLERANCE)
    torch.testing.assert_close(
        pipe(own, seed=0, negative_prompt="", **FAST).latents, pipe(without, seed=0, **FAST).latents, **TOLERANCE
    )


@pytest.fixture(scope="module")
def exact(pipe):
    """The same with networks in float64: what is left of a difference is no rounding."""
    return copy.deepcopy(pipe).to(torch.float64)


@pytest.mark.parametrize("name", KINDS)
def test_every_scheduler_runs(exact, name):
    """A random model's latents reach 70 here, where float32 batches differ by 1e-4 at times."""
    out = exact(scene_of(1), seed=0, scheduler=name, **FAST)
    assert torch.isfinite(out.latents).all()
    again = exact([scene_of(2), scene_of(1)], seed=0, scheduler=name, **FAST)
    torch.testing.assert_close(again.latents[1], out.latents[0], rtol=0, atol=1e-6)


def test_the_model_is_unchanged_after_sampling(pipe):
    def state():
        parts = {}
        for name in ("unet", "adapter", "vae", "text_encoder"):
            module = getattr(pipe, name)
            parts |= {f"{name}.{key}": value.clone() for key, value in module.state_dict().items()}
            for path, child in module.named_modules():
                plain = {k: v for k, v in vars(child).items() if not k.startswith("_")}
                parts[f"{name}.{path}"] = sorted(plain)
        return parts, copy.deepcopy(vars(pipe.scheduler))

    modules, scheduler = state()
    pipe(scene_of(3), seed=0, **FAST)
    after_modules, after_scheduler = state()
    assert modules.keys() == after_modules.keys()
    for name, value in modules.items():
        same = (
            torch.equal(value, after_modules[name]) if isinstance(value, torch.Tensor) else value == after_modules[name]
        )
        assert same, name
    assert scheduler.keys() == after_scheduler.keys()
    assert after_scheduler["ets"] == scheduler["ets"]


def test_published_details_of_the_sampler(pipe):
    scene, options = scene_of(2), {"num_inference_steps": 4, "guidance_scale": 1.0, "scheduler": "ddim"}
    # At a share of 1 the published code returns the last instance's latent; it makes no difference who else there is.
    last = pipe(scene, seed=0, mis_fraction=1.0, mis_compat="published", **options)
    alone = pipe(Scene(scene.instances[1].caption, (scene.instances[1],), 64, 64), seed=0, mis_fraction=0.0, **options)
    torch.testing.assert_close(last.latents, alone.latents, **TOLERANCE)
    merged = pipe(scene, seed=0, mis_fraction=1.0, **options)
    assert (merged.latents - last.latents).abs().max() > 1e-2
    # Its crops are transposed.
    crop = {"mis_fraction": 0.5, "mis_merge": "crop"}
    wide = Scene("x", (Instance("a", box=Box(0.0, 0.0, 1.0, 0.25)),), 64, 64)
    ours = pipe(wide, seed=0, **crop, **options)
    theirs = pipe(wide, seed=0, mis_compat="published", **crop, **options)
    assert (ours.latents - theirs.latents).abs().max() > 1e-3


def test_a_point_has_no_extent_to_paste(pipe):
    point = scene_of(2).instances[1]
    scene = Scene("x", (point,), 64, 64)
    off = pipe(scene, seed=0, mis_fraction=0.0, **FAST)
    crop = pipe(scene, seed=0, mis_fraction=0.5, mis_merge="crop", **FAST)
    torch.testing.assert_close(off.latents, crop.latents, **TOLERANCE)
    assert off.network_rows == crop.network_rows


def test_callback_replaces_latents_and_interrupts(pipe):
    seen = []

    def callback(pipeline, step, timestep, values):
        assert pipeline is pipe
        assert values["latents"].shape == (2, 4, 16, 16)
        seen.append(step)
        if step == 1:
            pipeline.interrupt = True
        return {"latents": torch.zeros_like(values["latents"])}

    out = pipe(scene_of(1), seed=[0, 1], callback_on_step_end=callback, **{**FAST, "num_inference_steps": 6})
    assert seen == [0, 1]
    assert out.interrupted
    assert len(out.images) == 2
    assert not out.latents.any()
    assert not pipe(scene_of(1), seed=0, **FAST).interrupted


def test_previews(pipe):
    shown = []
    pipe(
        [scene_of(1), scene_of(2)],
        seed=0,
        preview=lambda step, images: shown.append((step, [i.size for i in images])),
        preview_every=2,
        **{**FAST, "num_inference_steps": 5},
    )
    assert shown == [(1, [(32, 32)] * 2), (3, [(32, 32)] * 2)]


def test_latents_in_and_out(pipe):
    from instancediffusion.sampling import generators_for, start_noise

    noise = start_noise(generators_for([4, 9]), (4, 16, 16))
    given = pipe(scene_of(1), seed=[0, 1], latents=noise, **FAST)
    torch.testing.assert_close(given.latents, pipe(scene_of(1), seed=[4, 9], **FAST).latents, **TOLERANCE)
    with pytest.raises(SettingsError, match=r"latents\[1\].*\(4, 8, 8\).*\(4, 16, 16\)"):
        pipe(scene_of(1), seed=[0, 1], latents=[noise[0], noise[0][:, :8, :8]], **FAST)
    with pytest.raises(SettingsError, match="1 for 2 images"):
        pipe(scene_of(1), seed=[0, 1], latents=noise[:1], **FAST)
    only = pipe(scene_of(1), seed=0, output_type="latent", **FAST)
    assert torch.equal(only.images, only.latents)
    torch.testing.assert_close(only.latents, pipe(scene_of(1), seed=0, **FAST).latents, **TOLERANCE)


def test_a_cell_may_hold_several_codes_of_the_autoencoder(tmp_path):
    """A UNet of 4 channels and an autoencoder of 1: each cell of the latents is 2x2 codes."""
    packed = tiny_pipeline(tmp_path)
    packed.vae = tiny_vae(latent_channels=1).eval()
    out = packed(scene_of(1), seed=0, **FAST)
    height, width = out.latents.shape[2:]
    assert packed.latent_px == 8 and out.images[0].size == (8 * width, 8 * height)
    with torch.no_grad():
        codes = torch.zeros(1, 1, 2 * height, 2 * width)
        for k in range(4):  # channel k of a cell is its code in row k // 2 and column k % 2
            codes[:, 0, k // 2 :: 2, k % 2 :: 2] = out.latents[:1, k]
        expected = packed.vae.decode(codes / 0.5 + 0.1).sample
    torch.testing.assert_close(decode_latents(packed.vae, out.latents[:1]), expected, atol=1e-4, rtol=1e-4)


def test_sizes(pipe):
    assert pipe.picture_size(scene_of(0, 512, 512)) == (64, 64)
    assert pipe.picture_size(scene_of(0, 256, 64)) == (32, 128)
    assert pipe.picture_size(scene_of(0, 100, 90)) == (64, 64)
    out = pipe(scene_of(2), seed=0, height=36, width=60, **FAST)
    assert out.images[0].size == (60, 36)
    assert pipe(scene_of(2), seed=0, width=32, **FAST).images[0].size == (32, 32)
    with pytest.raises(SettingsError, match="height: 37 is not a multiple of 4; use 36 or 40"):
        pipe(scene_of(2), seed=0, height=37, **FAST)


def test_half_precision_on_the_cpu(pipe, tmp_path):
    small = tiny_pipeline(tmp_path).to(torch.bfloat16)
    exact = pipe(scene_of(2), seed=0, **FAST)
    rough = small(scene_of(2), seed=0, **FAST)
    assert rough.latents.dtype == torch.float32
    assert (rough.latents - exact.latents).abs().mean() < 0.3 * exact.latents.std()


def test_a_long_caption_is_cut_with_a_warning(pipe):
    scene = Scene("x", (Instance("a very long caption of one cat", box=Box(0, 0, 1, 1)),), 64, 64)
    with pytest.warns(SceneWarning, match="the model reads 24; what follows"):
        pipe(scene, seed=0, **FAST)


def test_save_and_load(pipe, tmp_path):
    scene = scene_of(3)
    pipe.save_pretrained(tmp_path / "model")
    loaded = InstanceDiffusionPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(loaded(scene, seed=0, **FAST).latents, pipe(scene, seed=0, **FAST).latents, **TOLERANCE)
    assert set(loaded.unet.state_dict()) == set(pipe.unet.state_dict())
    assert not any("adapter" in name for name in loaded.unet.state_dict())
    half = InstanceDiffusionPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.bfloat16)
    assert half.unet.dtype == half.adapter.dtype == half.vae.dtype == torch.bfloat16


def test_a_model_may_state_the_settings_it_is_best_run_with(tmp_path):
    best = {"num_inference_steps": 2, "guidance_scale": 3.0, "scheduler": "ddim"}
    tiny_pipeline(tmp_path / "tokenizer", default_settings=best).save_pretrained(tmp_path / "model")
    loaded = InstanceDiffusionPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    used = loaded(scene_of(1), seed=0, guidance_scale=1.0).settings
    assert used == GenerationSettings(num_inference_steps=2, guidance_scale=1.0, scheduler="ddim")


def test_offloading_keeps_the_adapter_where_the_unet_runs():
    assert "adapter" in InstanceDiffusionPipeline._exclude_from_cpu_offload
    assert "unet" in InstanceDiffusionPipeline.model_cpu_offload_seq.split("->")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps: 0 is not a whole number"),
        ({"num_inference_steps": 2.5}, "num_inference_steps: 2.5"),
        ({"guidance_scale": float("nan")}, "guidance_scale: nan"),
        ({"grounding_fraction": 1.2}, "grounding_fraction: 1.2 is not a number from 0 to 1"),
        ({"mis_merge": "average"}, "mis_merge: 'average' is not one of mean, crop, layered"),
        ({"scheduler": "unipcc"}, "did you mean 'unipc'"),
        ({"guidence_scale": 3}, "guidence_scale: unknown setting; did you mean 'guidance_scale'"),
        ({"seed": []}, "seed: 0 seeds are given"),
        ({"seed": -1}, "seed: -1 is not"),
        ({"seed": "7"}, "seed: '7' is not"),
        ({"seed": [1, 2], "num_images_per_scene": 3}, "seed: 2 seeds are given"),
        ({"num_images_per_scene": 0}, "num_images_per_scene: 0"),
        ({"output_type": "jpg"}, "output_type: 'jpg'"),
        ({"scheduler": "lcm", "num_inference_steps": 60}, "60 is more than the 50 steps of LCMScheduler"),
    ],
)
def test_settings_are_checked_before_work_starts(pipe, options, message, monkeypatch):
    monkeypatch.setattr(type(pipe), "_execution_device", property(lambda _: pytest.fail("work has started")))
    with pytest.raises(SettingsError) as caught:
        pipe(scene_of(1), **{"seed": 0, **options})
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["complete_captions", "place_objects"])
def test_settings_of_the_last_release_are_read_with_a_warning(name):
    with pytest.warns(SettingsWarning, match=f"{name}: .*leave it out"):
        assert GenerationSettings.from_dict({name: False, "num_inference_steps": 7}).num_inference_steps == 7
    assert name not in GenerationSettings().to_dict()


def test_all_bad_settings_are_listed():
    with pytest.raises(SettingsError) as caught:
        GenerationSettings(num_inference_steps=-1, guidance_scale=-2, mis_merge="x", height=3)
    assert len(str(caught.value).splitlines()) == 4


def test_no_scene(pipe):
    for nothing in ([], [None], 5):
        with pytest.raises(SettingsError, match="scene"):
            pipe(nothing, seed=0)


def test_the_refiner_is_asked_for_but_not_there(pipe):
    with pytest.raises(ModelError, match="load_refiner"):
        pipe(scene_of(1), seed=0, refiner_strength=0.3)


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "/no/such/folder"])
def test_a_model_that_does_not_exist(name):
    with pytest.raises(ModelError, match="there is no folder"):
        InstanceDiffusionPipeline.from_pretrained(name)


def test_a_folder_without_an_adapter(pipe, tmp_path):
    import shutil

    pipe.save_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "adapter")
    with pytest.raises(ModelError, match="adapter="):
        InstanceDiffusionPipeline.from_pretrained(tmp_path / "model")


def test_an_adapter_on_another_unet_is_refused(pipe, tmp_path):
    other = tiny_pipeline(tmp_path)
    other.adapter.remove()
    with pytest.raises(ModelError, match="remove"):
        InstanceDiffusionPipeline(**{**other.components, "adapter": pipe.adapter})


def test_a_second_pipeline_may_share_the_components(pipe):
    again = InstanceDiffusionPipeline(**pipe.components)
    again.set_progress_bar_config(disable=True)
    expected = pipe(scene_of(1), seed=0, **FAST).latents
    torch.testing.assert_close(again(scene_of(1), seed=0, **FAST).latents, expected, **TOLERANCE)


def test_a_folder_written_by_convert_is_loaded(pipe, tmp_path):
    """Such a folder names the classes by where they are meant to be found."""
    import json

    pipe.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model_index.json"
    index = json.loads(path.read_text())
    index["_class_name"] = ["instancediffusion.pipeline", "InstanceDiffusionPipeline"]
    index["adapter"] = ["instancediffusion.adapter", "InstanceAdapter"]
    del index["default_settings"]
    path.write_text(json.dumps(index))
    loaded = InstanceDiffusionPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    assert loaded.default_settings == GenerationSettings()
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(
        loaded(scene_of(1), seed=0, **FAST).latents, pipe(scene_of(1), seed=0, **FAST).latents, **TOLERANCE
    )
    index["tokenizer"] = [None, None]
    path.write_text(json.dumps(index))
    with pytest.raises(ModelError, match="tokenizer="):
        InstanceDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert InstanceDiffusionPipeline.from_pretrained(tmp_path / "model", tokenizer=pipe.tokenizer).tokenizer


def test_an_output_shows_its_images_in_a_notebook(pipe):
    output = pipe([scene_of(1), scene_of(2)], seed=[3, 4], num_inference_steps=1)
    assert output._repr_png_().startswith(b"\x89PNG")
    shown = output._repr_html_()
    assert shown.count("<img") == 4 and shown.count("seed 3") == 2 and "a red cat, a dog" in shown
    assert pipe(scene_of(1), seed=0, num_inference_steps=1, output_type="np")._repr_html_() is None
