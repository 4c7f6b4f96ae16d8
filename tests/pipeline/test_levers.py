"""What makes pictures cheaper: off, each is not there; on, it does what it says."""

import copy
import json

import pytest
import torch
from click.testing import CliRunner
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from torch._dynamo.testing import CompileCounter

from instancediffusion.cli import cli
from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.decoding import encode_pictures
from instancediffusion.pipeline.timing import LEVERS
from instancediffusion.presets import PRESETS, Preset
from instancediffusion.settings import GenerationSettings, register_preset
from tests.tiny_pipeline import scene_of, tiny_pipeline

CALL = {"seed": 0, "num_inference_steps": 6, "guidance_scale": 2.0, "scheduler": "ddim", "mis_fraction": 0.34}
TOLERANCE = {"rtol": 0, "atol": 1e-4}


def latents(pipe, scene=None, **options):
    return pipe(scene or scene_of(3), **{**CALL, **options}).latents


def by_step(pipe, **options):
    """The latents after each step."""
    seen = []

    def look(pipeline, step, timestep, tensors):
        seen.append(tensors["latents"].clone())
        return {}

    latents(pipe, callback_on_step_end=look, **options)
    return seen


def test_levers_that_are_off_leave_every_bit(pipe):
    plain = latents(pipe)
    for off in (
        {"cache_interval": 1},
        {"token_merging": 0.0},
        {"guidance_start": 0.0, "guidance_end": 1.0},
        {"guidance_end": 0.95},
    ):
        assert torch.equal(latents(pipe, **off), plain), off
    assert torch.equal(latents(pipe, guidance_end=0.0), latents(pipe, guidance_scale=1.0))
    one = {"num_inference_steps": 1, "mis_fraction": 0.0}  # the first call is whole
    assert torch.equal(latents(pipe, cache_interval=5, **one), latents(pipe, **one))


def test_guidance_acts_in_its_interval(pipe):
    """Before it the run is the one without guidance; in it and after it each costs what it costs."""
    unguided, both = by_step(pipe, guidance_scale=1.0), by_step(pipe, guidance_start=0.5, guidance_end=0.84)
    for step in range(3):
        assert torch.equal(both[step], unguided[step])
    assert (both[3] - unguided[3]).abs().max() > 1e-3
    out = pipe(scene_of(3), **CALL, guidance_start=0.5, guidance_end=0.84)
    assert out.network_rows == 2 * 4 + 1 + 2 * 2 + 1  # two steps of four trajectories, four of one; two are guided
    together = pipe([scene_of(1), scene_of(3)], **CALL, guidance_end=0.5, max_batch_rows=3).latents[1:]
    torch.testing.assert_close(together, latents(pipe, guidance_end=0.5), **TOLERANCE)


def test_progress_knows_the_rows_beforehand(pipe, monkeypatch):
    totals = []
    bar = type(pipe).progress_bar
    monkeypatch.setattr(
        type(pipe), "progress_bar", lambda self, total=None: totals.append(total) or bar(self, total=total)
    )
    for options in ({}, {"guidance_start": 0.3, "guidance_end": 0.7}, {"mis_merge": "layered", "guidance_end": 0.5}):
        out = pipe(scene_of(3), **{**CALL, **options})
        assert out.network_rows == pytest.approx(totals[-1])


def test_deep_features_are_reused(pipe):
    """Inner blocks run in half of the calls; a picture in a batch is the picture alone."""
    ran, own = [], copy.deepcopy(pipe)
    own.set_progress_bar_config(disable=True)
    own.unet.mid_block.register_forward_hook(lambda *_: ran.append(1))
    options = {"mis_fraction": 0.0, "grounding_fraction": 1.0}
    plain = latents(own, **options)
    whole = len(ran)
    for interval, runs in ((2, 3), (3, 2), (10, 1)):
        ran.clear()
        changed = (latents(own, cache_interval=interval, **options) - plain).abs().max()
        assert whole == 6 and len(ran) == runs
        assert changed > 1e-3
    assert torch.equal(latents(own, **options), plain)  # nothing is left on the UNet
    batch = pipe([scene_of(1), scene_of(3)], **CALL, cache_interval=2, max_batch_rows=4).latents[1:]
    torch.testing.assert_close(batch, latents(pipe, cache_interval=2), **TOLERANCE)


def test_deep_features_need_a_bare_unet(pipe):
    """Its blocks may be compiled, which is the remedy that is named."""
    own = copy.deepcopy(pipe)
    own.unet.compile()
    with pytest.raises(SettingsError, match=r"cache_interval.*compiled.*by unet.compile_repeated_blocks\(\)"):
        latents(own, cache_interval=2)
    own, counter = copy.deepcopy(pipe), CompileCounter()
    own.set_progress_bar_config(disable=True)
    torch._dynamo.reset()
    own.unet.compile_repeated_blocks(backend=counter)
    options = {"mis_fraction": 0.0, "cache_interval": 2, "num_inference_steps": 2}
    torch.testing.assert_close(latents(own, **options), latents(pipe, **options), **TOLERANCE)
    assert counter.frame_count > 0


def test_a_small_decoder_takes_the_place_of_the_autoencoder(pipe, tmp_path):
    """A TAESD-class one reads latents as they were sampled (its scale is 1): the numbers are those of diffusers."""
    levels = len(pipe.vae.config.block_out_channels)
    torch.manual_seed(4)
    small = AutoencoderTiny(
        encoder_block_out_channels=(8,) * levels,
        decoder_block_out_channels=(8,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
        latent_channels=pipe.vae.config.latent_channels,
    ).eval()
    pipe.save_pretrained(tmp_path)
    stored, own = type(pipe).from_pretrained(tmp_path), type(pipe).from_pretrained(tmp_path, vae=small)
    for each in (stored, own):
        each.set_progress_bar_config(disable=True)
    usual = stored(scene_of(2), **CALL)
    shown = {}
    other = own(scene_of(2), **CALL, preview=lambda step, images: shown.update({step: images[0]}), layers=True)
    assert torch.equal(usual.latents, own(scene_of(2), **CALL).latents)
    stock = StableDiffusionPipeline(
        vae=small, text_encoder=own.text_encoder, tokenizer=own.tokenizer, unet=copy.deepcopy(pipe).unet,
        scheduler=own.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    with torch.no_grad():
        expected = stock.image_processor.postprocess(small.decode(other.latents / small.config.scaling_factor)[0])[0]
    assert other.images[0].tobytes() == expected.tobytes() != usual.images[0].tobytes()
    assert shown and {image.size for image in shown.values()} == {(32, 32)}
    assert len(other.layers[0]) == 3 and all(layer.image.size == (64, 64) for layer in other.layers[0])
    # And its encoder, which gives latents and no distribution of them.
    picture = stock.image_processor.preprocess(usual.images[0])
    with torch.no_grad():
        codes = small.encode(picture).latents
        found = encode_pictures(small, picture, codes.shape[1])
    torch.testing.assert_close(found, codes)
    assert own(scene_of(2), **CALL, image=usual.images[0], strength=0.5).images[0].size == (64, 64)


@pytest.mark.slow
def test_few_graphs_are_all_that_is_compiled(pipe):
    """With instances, with them noted in a first call, and without: no break in any, and none anew in later steps."""
    own, counter = copy.deepcopy(pipe), CompileCounter()
    options = {"mis_fraction": 0.0, "grounding_fraction": 0.5}
    torch._dynamo.reset()
    own.unet.compile(backend=counter, fullgraph=True)
    compiled = latents(own, **options)
    graphs = counter.frame_count
    assert 2 <= graphs <= 3
    torch.testing.assert_close(compiled, latents(pipe, **options), **TOLERANCE)
    latents(own, scene_of(3), **options, num_inference_steps=8)
    assert counter.frame_count == graphs


def test_explicit_settings_win_over_a_preset_and_that_over_the_model(pipe):
    out = pipe(scene_of(2), preset="fast", seed=0, num_inference_steps=2, output_type="latent")
    assert out.settings == GenerationSettings.preset("fast", pipe.default_settings).replace(num_inference_steps=2)
    own = GenerationSettings(num_inference_steps=3, guidance_scale=3.0, timesteps=(900, 500, 100))
    chosen = GenerationSettings.preset("fast", own)
    assert (chosen.num_inference_steps, chosen.timesteps, chosen.guidance_scale) == (3, None, 3.0)
    with pytest.raises(SettingsError, match=r"preset: 'fats' is not one of exact.*did you mean 'fast'"):
        pipe(scene_of(2), preset="fats")


@pytest.mark.parametrize(("own", "steps"), [(50, 10), (25, 10), (16, 6), (8, 4), (3, 3)])
def test_presets_are_cheaper_than_the_model_they_are_for(own, steps):
    """Whatever a model needs; and one that is told its instances throughout stays so."""
    model = GenerationSettings(num_inference_steps=own, grounding_fraction=1.0, mis_fraction=0.0)
    fast, balanced = (GenerationSettings.preset(name, model) for name in ("fast", "balanced"))
    assert fast.num_inference_steps == steps <= balanced.num_inference_steps <= own
    assert {each.grounding_fraction for each in (fast, balanced)} == {1.0}
    assert {each.mis_fraction for each in (fast, balanced)} == {0.0}
    other = GenerationSettings.preset("fast", model.replace(grounding_fraction=0.9, mis_fraction=0.1))
    assert (other.grounding_fraction, other.mis_fraction) == (0.6, 0.1)


def test_a_preset_of_ones_own(pipe):
    try:
        register_preset(Preset("sketch", "Two steps.", {"num_inference_steps": 2}))
        assert pipe(scene_of(1), preset="sketch", seed=0, output_type="latent").settings.num_inference_steps == 2
        with pytest.raises(SettingsError, match="num_inference_steps"):
            register_preset(Preset("nothing", "No step.", {"num_inference_steps": 0}))
        assert "nothing" not in PRESETS
    finally:
        PRESETS.pop("sketch")


@pytest.fixture(scope="module")
def few_step(tmp_path_factory):
    """A LoRA file by the name of a distilled one."""
    folder = tmp_path_factory.mktemp("lcm-lora-sdv1-5")
    torch.manual_seed(1)
    other = tiny_pipeline(folder / "source")
    other.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(other.unet)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name="style.safetensors")
    return folder


def test_a_few_step_lora_decides_what_fast_means(few_step, tmp_path):
    pipe, own = tiny_pipeline(tmp_path), {"seed": 0, "output_type": "latent"}

    def used(preset="fast"):
        settings = pipe(scene_of(2), preset=preset, **own, num_inference_steps=2).settings
        return settings.scheduler, settings.guidance_scale, settings.cache_interval

    usual = used()
    assert usual == ("dpm++_2m", 7.5, 2)
    pipe.load_lora_weights(few_step / "style.safetensors", adapter_name="style")
    assert used() == usual
    pipe.load_lora_weights(few_step)
    assert used() == used("balanced") == ("lcm", 1.0, 1)
    pipe.set_adapters("style")  # the other is there, and not in use
    assert used() == usual
    pipe.set_adapters([name for names in pipe.get_list_adapters().values() for name in names])
    assert used() == ("lcm", 1.0, 1)
    assert used("exact")[:2] == ("plms", 7.5)
    pipe.disable_lora()
    assert used() == usual
    pipe.enable_lora()
    pipe.fuse_lora()
    assert used() == ("lcm", 1.0, 1)
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    assert used() == usual
    plain = pipe(scene_of(2), preset="fast", **own).latents
    pipe.load_lora_weights(few_step / "style.safetensors", adapter_name="tcd")
    out = pipe(scene_of(2), preset="fast", mis_fraction=0.0, **own)
    assert (out.settings.scheduler, out.settings.eta, out.network_rows) == ("tcd", 0.3, 4)
    assert plain.shape == out.latents.shape


def test_bench_measures_presets_and_each_of_their_levers(tmp_path):
    own = {"num_inference_steps": 12, "scheduler": "ddim"}
    tiny_pipeline(tmp_path / "made", default_settings=own).save_pretrained(tmp_path / "model")
    options = ["--calls", "1", "--instances", "2", "--json", "--model", str(tmp_path / "model")]
    done = CliRunner().invoke(cli, ["bench", "--preset", "fast", *options])
    assert done.exit_code == 0, done.output
    told = {row["name"]: row for row in json.loads(done.stdout)["pictures"]}
    unasked = ("guidance in an interval", "tokens merged")  # no preset asks for these
    pulled = [lever for lever in LEVERS if lever not in unasked]
    assert list(told) == ["the model's own", *(f"fast: {lever} alone" for lever in pulled), "fast"]
    assert told["the model's own"]["change"] == 0 and told["the model's own"]["share"] == 1
    for name, row in told.items():
        assert row["seconds"] > 0 and (row["change"] > 0) == (name != "the model's own"), name
    assert told["fast"]["rows"] < told["fast: fewer steps alone"]["rows"] < told["the model's own"]["rows"]
    assert told["fast: deep features reused alone"]["rows"] == told["the model's own"]["rows"]
