"""The hub, spoken to over HTTP on this machine: loading by id, variants, pushing, and the cache without a network."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file

from instancediffusion import load_scene
from instancediffusion.checkpoints import load_official, official_scheduler
from instancediffusion.checkpoints.folder import set_end_of_text
from instancediffusion.pipeline import InstanceDiffusionPipeline
from tests.golden.checkpoint import published_checkpoint
from tests.hub.client import FAST, draw, from_cache_too, refusal
from tests.hub.server import LoopbackHub
from tests.ldm import single_file
from tests.tiny_pipeline import scene_of, tiny_pipeline, tiny_tokenizer

SCENE = {
    "version": 1,
    "prompt": "a cat",
    "width": 64,
    "height": 64,
    "instances": [{"caption": "a cat", "box": [8, 8, 40, 60]}, {"caption": "a dog", "point": [50, 20]}],
}


def close(latents, expected):
    torch.testing.assert_close(torch.tensor(latents), expected, atol=1e-4, rtol=0)


@pytest.fixture
def hub(tmp_path):
    served = LoopbackHub(tmp_path / "repositories")
    yield served
    served.close()


def run(hub, folder, arguments, **environment):
    """A fresh process whose hub is `hub` and whose caches are in `folder`."""
    settings = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "hub"),
        "INSTANCEDIFFUSION_CACHE": str(folder / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "hf_test",
        "NO_PROXY": "127.0.0.1",
        **environment,
    }
    inherited = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env={**inherited, **settings}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_models_of_the_hub(hub, tmp_path):
    pipe = tiny_pipeline(tmp_path / "vocabulary")
    pipe.tokenizer.save_pretrained(tmp_path / "tokenizer")
    expected = pipe(scene_of(3), **FAST).latents.flatten()
    served = hub.root / "me"
    pipe.save_pretrained(served / "ours")
    pipe.save_pretrained(served / "variant", variant="fp16")
    pipe.adapter.save_pretrained(served / "adapter")
    pipe.adapter.remove()
    parts = {
        name: part for name, part in pipe.components.items() if name in ("vae", "text_encoder", "tokenizer", "unet")
    }
    stock = StableDiffusionPipeline(
        **parts, scheduler=pipe.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    stock.save_pretrained(served / "stock")
    stock.save_pretrained(served / "stock", variant="non_ema")  # nobody asks for it, so nobody downloads it
    (served / "stock" / "unet" / "diffusion_flax_model.msgpack").write_bytes(b"of another framework")
    (served / "files").mkdir()
    save_file(single_file(pipe.unet, pipe.vae, pipe.text_encoder), served / "files" / "finetune.safetensors")

    run(hub, tmp_path, ["-m", "tests.hub.client", tmp_path / "found.json"])
    found = json.loads((tmp_path / "found.json").read_text())
    refused = {name: value for name, value in found.items() if isinstance(value, str)}
    for name, latents in found.items():
        if name not in refused:
            close(latents, expected)
    assert "pass adapter=" in refused["no adapter"] and "me/stock" in refused["no adapter"]
    assert "pass it as adapter=" in refused["only an adapter"]
    assert "only plain weights" in refused["no such variant"]
    assert "no repository 'me/nothing'" in refused["no such repository"]
    assert "it is a Stable Diffusion model in one file" in refused["no such adapter"]
    assert all(len(message.splitlines()) == 1 for message in refused.values())

    assert hub.downloaded("me/variant") >= {"adapter/diffusion_pytorch_model.fp16.safetensors"}
    assert not any("non_ema" in name or "msgpack" in name for name in hub.downloaded("me/stock"))
    for repository, usage in (
        ("pushed", 'from_pretrained("me/pushed")'),
        ("pushed-adapter", 'adapter="me/pushed-adapter"'),
    ):
        card = ModelCard.load(served / repository / "README.md")
        assert card.data.library_name == "instancediffusion"
        assert card.data.pipeline_tag == "text-to-image"
        assert usage in card.text
    pushed = load_file(served / "pushed" / "adapter" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, pipe.adapter.state_dict()[name]) for name, value in pushed.items())

    # This process is offline (see conftest.py): the same from the cache.
    asked, cache = len(hub.requests), {"cache_dir": tmp_path / "hub" / "hub"}
    for name, latents in from_cache_too(**cache):
        assert name in found
        close(latents, expected)
    close(draw("me/pushed", **cache), expected)
    assert "not in the cache" in refusal("me/never-loaded", **cache)
    assert len(hub.requests) == asked


def with_captions_of_its_own_encoder(groups, width=64):
    """The micro checkpoint takes captions of 768 values, its text encoder makes 64: cut the tokenizer to those."""
    net = dict(groups["model"])
    name = "position_net.null_positive_feature"
    captions = len(net[name])
    net[name] = net[name][:width].clone()
    for group in range(4):
        weight = f"position_net.linears_list.{group}.0.weight"
        net[weight] = torch.cat([net[weight][:, :width], net[weight][:, captions:]], dim=1)
    return {**groups, "model": net}


@pytest.mark.slow
def test_the_published_checkpoint_by_name(hub, tmp_path, monkeypatch):
    """`--model sd15` from the card's repositories, at micro size: the golden checkpoint, as its own loader reads it."""
    base = hub.root / "stable-diffusion-v1-5" / "stable-diffusion-v1-5"
    weights = hub.root / "xudongw" / "InstanceDiffusion" / "instancediffusion_sd15.pth"
    weights.parent.mkdir(parents=True)
    torch.save(with_captions_of_its_own_encoder(published_checkpoint()), weights)
    tokenizer = tiny_tokenizer(tmp_path / "vocabulary")
    tokenizer.save_pretrained(base / "tokenizer")
    (base / "unet").mkdir()
    (base / "unet" / "config.json").write_text(
        json.dumps({"attention_head_dim": 2, "block_out_channels": [32, 64, 64]})
    )
    (tmp_path / "scene.json").write_text(json.dumps(SCENE))
    steps = ["--steps", "2", "--height", "64", "--width", "64", "--device", "cpu", "--quiet"]
    generate = ["-m", "instancediffusion", "generate", tmp_path / "scene.json", "--model", "sd15", *steps, "-o"]
    run(hub, tmp_path, [*generate, tmp_path / "pictures"])
    with Image.open(tmp_path / "pictures" / "scene_0.png") as picture:
        drawn = np.asarray(picture.convert("RGB")).astype(int)

    parts = load_official(weights, num_heads=2).modules()
    set_end_of_text(parts["text_encoder"], tokenizer)
    by_hand = InstanceDiffusionPipeline(**parts, tokenizer=tokenizer, scheduler=official_scheduler())
    monkeypatch.setenv("INSTANCEDIFFUSION_CACHE", str(tmp_path / "cache"))
    asked = len(hub.requests)
    offline = InstanceDiffusionPipeline.from_pretrained("sd15")
    scene = load_scene(tmp_path / "scene.json")
    for pipe in (by_hand, offline):
        pipe.set_progress_bar_config(disable=True)
        found = np.asarray(pipe(scene, seed=0, num_inference_steps=2, height=64, width=64).images[0]).astype(int)
        assert np.abs(found - drawn).max() <= 1  # rounding
    assert len(hub.requests) == asked
