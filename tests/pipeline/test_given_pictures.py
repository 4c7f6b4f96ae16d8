"""Pictures to go on from, ControlNets, T2I-Adapters and IP-Adapters: as diffusers' own pipelines, and in scenes."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
)
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from instancediffusion import Box, Instance, InstanceAdapter, InstanceDiffusionPipeline, Scene
from instancediffusion.errors import ModelError, SettingsError
from tests.pipeline.test_contract import FAST, TOLERANCE, components
from tests.tiny import tiny_unet
from tests.tiny_pipeline import scene_of

STEPS = {**FAST, "num_inference_steps": 4}
STOCK = {**STEPS, "output_type": "latent", "return_dict": False}


def ours_of(parts, **more):
    adapter = InstanceAdapter.for_unet(parts["unet"], token_dim=24, caption_dim=32, hidden_dim=40)
    pipeline = InstanceDiffusionPipeline(**parts, adapter=adapter, **more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def parts(tmp_path):
    parts = components(tmp_path)
    parts["scheduler"] = DDIMScheduler.from_config(parts["scheduler"].config, clip_sample=False)
    return parts


def stock_of(cls, parts, **more):
    pipeline = cls(**parts, requires_safety_checker=False, **more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(seed=5):
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def picture(seed=0, size=64):
    array = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(array).resize((size, size), Image.Resampling.NEAREST)


def mask(box=(16, 24, 48, 56), size=64):
    white = Image.new("L", (size, size))
    white.paste(255, box)
    return white


@pytest.mark.parametrize("strength", [0.3, 0.8, 1.0])
def test_image_to_image_is_that_of_diffusers(parts, strength):
    call = {"prompt": "a cat", "image": noise(9), "strength": strength}
    stock = stock_of(StableDiffusionImg2ImgPipeline, parts)
    expected = stock(**STOCK, **call, generator=torch.Generator().manual_seed(5))[0]
    found = ours_of(parts)(**STOCK, **call, seed=5, height=64, width=64)[0]
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting_is_that_of_diffusers(parts, strength):
    without_chance(parts["vae"])
    call = {"prompt": "a cat", "image": picture(), "mask_image": mask(), "strength": strength}
    generator = torch.Generator().manual_seed(5)
    expected = stock_of(StableDiffusionInpaintPipeline, parts)(**STOCK, **call, generator=generator)[0]
    generator.manual_seed(5)
    torch.randn(1, 4, 16, 16, generator=generator)  # what diffusers draws for the encoder
    drawn = torch.randn(1, 4, 16, 16, generator=generator)
    torch.testing.assert_close(ours_of(parts)(**STOCK, **call, latents=drawn)[0], expected, **TOLERANCE)


def without_chance(vae):
    """diffusers draws from the encoder's distribution, we take its mean."""
    with torch.no_grad():
        vae.quant_conv.bias[4:] = -60.0
        vae.quant_conv.weight[4:] = 0.0


def test_an_inpainting_unet_is_used_as_in_diffusers(parts):
    parts["unet"] = tiny_unet(in_channels=9)
    without_chance(parts["vae"])
    call = {"prompt": "a cat", "image": picture(), "mask_image": mask(), "latents": noise()}
    expected = stock_of(StableDiffusionInpaintPipeline, parts)(**STOCK, **call, strength=1.0)[0]
    ours = ours_of(parts)
    torch.testing.assert_close(ours(**STOCK, **call)[0], expected, **TOLERANCE)
    kept = np.asarray(mask()) == 0
    for rule in ("mean", "layered", "regional"):
        shown = {**call, "prompt": None, "latents": None, "mis_merge": rule, "seed": 0}
        found = np.asarray(ours(scene_of(3), **shown, **STEPS).images[0])
        assert (found[kept] == np.asarray(picture())[kept]).all()


@pytest.mark.parametrize("rule", ["mean", "crop", "layered"])
@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_what_the_mask_leaves_stays_to_the_pixel(pipe, rule, output_type):
    given, white = picture(), np.asarray(mask()) > 0
    out = pipe(
        scene_of(4), image=given, mask_image=mask(), seed=1, mis_fraction=0.5, mis_merge=rule, output_type=output_type,
        **STEPS,
    )  # fmt: skip
    image = out.images[0]
    if output_type != "pil":
        image = np.asarray(image if output_type == "np" else image.permute(1, 2, 0)) * 255
        image = np.round(image)
    found, before = np.asarray(image).astype(int), np.asarray(given).astype(int)
    assert (found[~white] == before[~white]).all()
    assert np.abs(found[white] - before[white]).mean() > 5


def test_pictures_give_the_size_and_are_checked(pipe):
    assert pipe("a cat", image=picture(size=70), seed=0, **STEPS).images[0].size == (64, 64)
    assert pipe("a cat", image=picture(size=70), height=32, width=96, seed=0, **STEPS).images[0].size == (96, 32)
    two = pipe(["a cat", "a dog"], image=[picture(0), picture(1)], strength=0.3, seed=0, **STEPS)
    alone = pipe("a dog", image=picture(1), strength=0.3, seed=0, **STEPS)
    torch.testing.assert_close(two.latents[1], alone.latents[0], **TOLERANCE)
    for arguments, message in (
        ({"image": [picture()] * 3}, "image: 3 for 1 images"),
        ({"image": "cat.png"}, "image: "),
        ({"mask_image": mask()}, "mask_image: there is no image"),
        ({"strength": 0.5}, "strength: there is no image"),
        ({"image": picture(), "strength": 1.5}, "strength: 1.5 is not a number from 0 to 1"),
        ({"control_image": picture()}, "control_image: there is no controlnet"),
        ({"controlnet": tiny_controlnet()}, "control_image: controlnet needs a picture"),
        ({"controlnet": "canny", "control_image": picture()}, "controlnet: it is str"),
    ):
        with pytest.raises(SettingsError, match=message):
            pipe("a cat", seed=0, **arguments, **STEPS)


def tiny_controlnet(seed=7, **config):
    torch.manual_seed(seed)
    net = ControlNetModel.from_unet(tiny_unet(), conditioning_embedding_out_channels=(8, 16, 32)).eval()
    with torch.no_grad():  # new ones do nothing
        for parameter in net.parameters():
            if not parameter.any():
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return net


def tiny_t2i(seed=8):
    torch.manual_seed(seed)
    return T2IAdapter(
        in_channels=3, channels=[32, 64], num_res_blocks=1, downscale_factor=4, adapter_type="full_adapter"
    ).eval()


@pytest.mark.parametrize("count", [1, 2])
def test_controlnets_are_those_of_diffusers(parts, count):
    nets, images = [tiny_controlnet(7 + k) for k in range(count)], [picture(k) for k in range(count)]
    several = {"controlnet_conditioning_scale": [0.7, 1.3], "control_guidance_end": [0.5, 1.0]} if count > 1 else {}
    call = {"prompt": ["a cat", "a dog"], **several, "latents": torch.cat([noise(1), noise(2)])}
    stock = stock_of(StableDiffusionControlNetPipeline, parts, controlnet=nets if count > 1 else nets[0])
    expected = stock(**STOCK, **call, image=images if count > 1 else images[0])[0]
    given = {"controlnet": nets if count > 1 else nets[0], "control_image": images if count > 1 else images[0]}
    ours = ours_of(parts)
    torch.testing.assert_close(ours(**STOCK, **call, **given)[0], expected, **TOLERANCE)
    plain = ours(**STOCK, prompt=call["prompt"], latents=call["latents"])[0]
    assert (plain - expected).abs().max() > 1e-3


def test_t2i_adapters_are_those_of_diffusers(parts):
    call = {"prompt": "a cat", "latents": noise()}
    stock = stock_of(StableDiffusionAdapterPipeline, parts, adapter=tiny_t2i())
    expected = stock(**STOCK, **call, image=picture(), adapter_conditioning_scale=0.8)[0]
    given = {"t2i_adapter": tiny_t2i(), "t2i_adapter_image": picture(), "t2i_adapter_conditioning_scale": 0.8}
    ours = ours_of(parts)
    torch.testing.assert_close(ours(**STOCK, **call, **given)[0], expected, **TOLERANCE)
    assert (ours(**STOCK, **call)[0] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("rule", ["mean", "layered", "regional"])
def test_control_acts_in_scenes_as_in_batches_of_one(pipe, rule):
    """Rows of texts of several lengths, instances alone and on crops, in one call or in many."""
    scenes = [scene_of(2), dataclasses.replace(scene_of(3), prompt="some " * 20)]
    call = {
        "controlnet": tiny_controlnet(), "control_image": [picture(1), picture(2)], "seed": 3, "mis_merge": rule,
        "mis_fraction": 0.5, **STEPS,
    }  # fmt: skip
    together = pipe(scenes, **call).latents
    for k, scene in enumerate(scenes):
        alone = pipe(scene, **{**call, "control_image": picture(k + 1)}, max_batch_rows=3).latents[0]
        torch.testing.assert_close(together[k], alone, rtol=0, atol=1e-3)
    other = pipe(scenes[0], **{**call, "control_image": picture(5)}).latents[0]
    assert (other - together[0]).abs().max() > 4e-3


def test_a_controlnet_of_another_model_is_refused(pipe):
    other = ControlNetModel.from_unet(
        tiny_unet(cross_attention_dim=48), conditioning_embedding_out_channels=(8, 16, 32)
    )
    with pytest.raises(ModelError, match=r"controlnet: it is for texts of 48 channels, and this model's have 32"):
        pipe("a cat", controlnet=other, control_image=picture(), seed=0, **STEPS)


def image_encoder():
    torch.manual_seed(11)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=12,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval(), CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )


def ip_adapter_weights(unet, seed=12):
    """Weights in the layout of published IP-Adapters: a projection to 4 tokens, and a pair of layers each."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator) * 0.3

    tokens, width = 4, unet.config.cross_attention_dim
    projection = {
        "proj.weight": random(tokens * width, 12), "proj.bias": random(tokens * width),
        "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width),
    }  # fmt: skip
    layers, number = {}, 1
    for name, processor in unet.attn_processors.items():
        if name.endswith("attn2.processor"):
            channels = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            for kind in "kv":
                layers[f"{number}.to_{kind}_ip.weight"] = random(channels, width)
            number += 2
        del processor
    return {"image_proj": projection, "ip_adapter": layers}


def with_ip_adapter(parts, cls=None):
    encoder, extractor = image_encoder()
    own = {**parts, "feature_extractor": extractor}
    pipeline = stock_of(cls, own, image_encoder=encoder) if cls else ours_of(own, image_encoder=encoder)
    pipeline.load_ip_adapter(ip_adapter_weights(pipeline.unet), subfolder=None, weight_name=None)
    return pipeline


def test_references_are_the_masked_ip_adapter_pictures_of_diffusers(parts):
    """An adapter that does nothing yet: what is left of the instances is their references."""
    scene = scene_of(1)
    scene = dataclasses.replace(
        scene, instances=(dataclasses.replace(scene.instances[0], reference=picture(3)),), negative_prompt="x"
    )
    ours = with_ip_adapter({**parts, "unet": tiny_unet()})
    found = ours(scene, **STOCK, latents=noise(), mis_fraction=0)[0]
    stock = with_ip_adapter({**parts, "unet": tiny_unet()}, StableDiffusionPipeline)
    where = torch.zeros(1, 1, 16, 16)
    where[..., :8, :8] = 1  # its box
    expected = stock(
        scene.prompt, negative_prompt="x", **STOCK, latents=noise(), ip_adapter_image=[[picture(3)]],
        cross_attention_kwargs={"ip_adapter_masks": [where]},
    )[0]  # fmt: skip
    torch.testing.assert_close(found, expected, **TOLERANCE)
    both = ours(scene, **STOCK, latents=noise(), mis_fraction=0, ip_adapter_image=picture(4))[0]
    expected = stock(
        scene.prompt, negative_prompt="x", **STOCK, latents=noise(), ip_adapter_image=[[picture(4), picture(3)]],
        cross_attention_kwargs={"ip_adapter_masks": [torch.cat([torch.ones_like(where), where], 1)]},
    )[0]  # fmt: skip
    torch.testing.assert_close(both, expected, **TOLERANCE)


def test_captions_by_region_see_the_pictures_of_an_ip_adapter(parts):
    """One caption of the whole canvas is the prompt; references, which have regions of their own, are refused."""
    ours = with_ip_adapter(parts)
    told = Scene("a dog", (Instance("a red cat", box=Box(0, 0, 1, 1)),), 64, 64)
    call = {"seed": 2, "mis_merge": "regional", "grounding_fraction": 0.0, "ip_adapter_image": picture(4), **STEPS}
    expected = ours(dataclasses.replace(told, prompt="a red cat", instances=()), **call).latents
    torch.testing.assert_close(ours(told, mis_fraction=1.0, **call).latents, expected, rtol=0, atol=1e-4)
    own = dataclasses.replace(told, instances=(dataclasses.replace(told.instances[0], reference=picture(3)),))
    with pytest.raises(SettingsError, match=r"mis_merge: 'regional' is not to be had here: references of single"):
        ours(own, mis_fraction=1.0, **call)


def test_references_in_batches_with_and_without_them(parts):
    ours = with_ip_adapter(parts)
    plain = scene_of(3)
    told = dataclasses.replace(
        plain,
        instances=(
            dataclasses.replace(plain.instances[0], reference=picture(3)),
            plain.instances[1],
            dataclasses.replace(plain.instances[2], reference=picture(4), negative="blue"),
        ),
    )
    call = {"seed": 2, "mis_fraction": 0.5, "mis_merge": "layered", **STEPS}
    together = ours([plain, told], **call).latents
    torch.testing.assert_close(together[1], ours(told, max_batch_rows=2, **call).latents[0], rtol=0, atol=1e-3)
    ours.unload_ip_adapter()
    torch.testing.assert_close(together[0], ours(plain, **call).latents[0], rtol=0, atol=1e-3)
    with pytest.raises(ModelError, match=r"instances\[0\].reference: the model has no IP-Adapter"):
        ours(told, **call)
