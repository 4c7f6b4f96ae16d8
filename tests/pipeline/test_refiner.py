import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

from instancediffusion.errors import ModelError
from instancediffusion.pipeline.refiner import check_refiner, native_size
from tests.tiny import tiny_unet
from tests.tiny_pipeline import scene_of, tiny_scheduler, tiny_text_encoder, tiny_tokenizer, tiny_vae

FAST = {"num_inference_steps": 2, "guidance_scale": 1.0, "mis_fraction": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stock image-to-image pipeline of tiny components, for pictures of 96 pixels."""
    place = tmp_path_factory.mktemp("refiner")
    tokenizer = tiny_tokenizer(place / "tokens")
    StableDiffusionImg2ImgPipeline(
        vae=tiny_vae(7),
        text_encoder=tiny_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        unet=tiny_unet(8, sample_size=24),
        scheduler=DDIMScheduler.from_config(tiny_scheduler().config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(place / "model")
    return place / "model"


@pytest.fixture
def refined(pipe, folder):
    pipe.load_refiner(str(folder))
    pipe.refiner.set_progress_bar_config(disable=True)
    yield pipe
    pipe.refiner = None


def pixels(image):
    return np.asarray(image).astype(int)


def test_a_refined_picture_has_the_size_the_refiner_was_trained_on(refined):
    scene, wide = scene_of(1), scene_of(1, 256, 128)
    options = {**FAST, "refiner_strength": 0.5, "refiner_steps": 4}
    out = refined([scene, wide], seed=[0, 1], **options)
    assert [image.size for image in out.images] == [(96, 96)] * 2 + [(128, 64)] * 2
    assert "refining" in out.timings
    # The refiner, too, has a generator for each image.
    alone = refined(wide, seed=1, **options).images[0]
    assert np.abs(pixels(alone) - pixels(out.images[3])).max() <= 1
    assert (pixels(out.images[0]) != pixels(out.images[1])).any()


def test_it_is_off_unless_asked_for(refined):
    assert refined(scene_of(1), seed=0, **FAST).images[0].size == (64, 64)


def test_it_is_told_prompts_and_strength(refined):
    options = {**FAST, "refiner_strength": 0.5, "refiner_steps": 4, "refiner_guidance_scale": 5.0}
    base = pixels(refined(scene_of(1), seed=0, **options).images[0])
    for change in ({"negative_prompt": "night"}, {"refiner_strength": 1.0}, {"refiner_guidance_scale": 2.0}):
        assert (pixels(refined(scene_of(1), seed=0, **{**options, **change}).images[0]) != base).any(), change


def test_what_is_no_image_to_image_pipeline_is_refused(pipe):
    class TextToImage:
        def __call__(self, prompt, num_inference_steps=20): ...

    with pytest.raises(ModelError, match="TextToImage takes no 'image'"):
        check_refiner(TextToImage())
    check_refiner(pipe)  # it takes a picture and a strength
    with pytest.raises(ModelError, match="cannot be loaded"):
        pipe.load_refiner("./nowhere")
    assert pipe.refiner is None


@pytest.mark.parametrize(
    ("size", "expected"), [((512, 512), (1024, 1024)), ((768, 512), (1280, 832)), ((300, 900), (576, 1792))]
)
def test_the_native_size_of_the_published_refiner(size, expected):
    class Refiner:
        vae_scale_factor = 8
        unet = torch.nn.Module()

    Refiner.unet.config = type("Config", (), {"sample_size": 128})
    assert native_size(Refiner, size) == expected
