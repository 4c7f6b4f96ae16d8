"""The model in the package: its files agree with each other and with what is said of it; its parts do their work."""

import dataclasses
import json

import pytest
import torch

from instancediffusion import Box, Instance, InstanceDiffusionPipeline, Scene
from instancediffusion.checkpoints import CARDS, mini_folder, weights_sha256

LIMIT_BYTES = 64_000_000
PAIR = Scene(
    "a dog and a red apple",
    (
        Instance("a dog", box=Box(0.05, 0.2, 0.7, 0.95), z_order=1),
        Instance("a red apple", box=Box(0.45, 0.3, 0.95, 0.9), z_order=2),
    ),
    512,
    512,
)


@pytest.fixture(scope="module")
def mini():
    pipeline = InstanceDiffusionPipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline, scene=PAIR, **settings):
    quick = {"num_inference_steps": 2, "guidance_scale": 1.0, "seed": 3, "output_type": "latent"}
    return pipeline(scene, **{**quick, **settings}).latents


def test_files_are_small_and_agree_with_the_card(mini):
    folder = mini_folder()
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LIMIT_BYTES
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    # Its autoencoder once named the folder it had been trained in.
    assert not [path for path in folder.rglob("config.json") if "_name_or_path" in path.read_text(encoding="utf-8")]
    assert card["weights_sha256"] == weights_sha256(folder)
    assert card["side_px"] == card["world"]["size"] == CARDS["mini"].side_px
    assert mini.picture_size(PAIR) == (card["side_px"], card["side_px"])
    assert len(mini.familiar.captions) == len(card["objects"])


def test_everyday_words_are_no_strangers_and_nonsense_is(mini):
    asked = ["a puppy", "a corgi", "a cottage", "a cute sitting cat", "zxqv blorf"]
    found = mini.familiar.strangers(asked, mini.tokenizer, mini.text_encoder)
    assert [caption for caption, _, _ in found] == ["zxqv blorf"]


def test_a_caption_that_names_two_things_is_about_the_first(mini):
    """ "A corgi sitting in front of a cupcake" was read as a cupcake."""
    plain = ["a dog", "a cupcake", "a polar bear", "an iceberg", "a pear", "an apple", "a vase", "a flower"]
    asked = [
        ("a corgi sitting in front of a cupcake", "a dog"),
        ("a cupcake that stands beside a corgi", "a cupcake"),
        ("a polar bear standing majestically on an iceberg", "a polar bear"),
        ("a yellow pear partly covered by an apple", "a pear"),
        ("a red apple in front of a pear", "an apple"),
        ("a tall vase on the table, covered by the flower", "a vase"),
    ]

    def features(texts):
        tokens = mini.tokenizer(texts, padding=True, return_tensors="pt").input_ids
        with torch.inference_mode():
            return torch.nn.functional.normalize(mini.text_encoder(tokens).pooler_output.float(), dim=1)

    nearest = (features([caption for caption, _ in asked]) @ features(plain).T).argmax(1)
    assert [plain[number] for number in nearest] == [right for _, right in asked]


def test_layout_and_order_reach_the_picture_through_the_gates_only(mini):
    apart = dataclasses.replace(PAIR, instances=PAIR.instances[:1])
    turned = dataclasses.replace(
        PAIR, instances=tuple(dataclasses.replace(one, z_order=3 - one.z_order) for one in PAIR.instances)
    )
    whole = latents(mini)
    for other in (apart, turned):
        assert (latents(mini, other) - whole).abs().mean() > 1e-3
    without = [latents(mini, scene, grounding_fraction=0.0) for scene in (PAIR, apart, turned)]
    assert torch.equal(without[0], without[1]) and torch.equal(without[0], without[2])
    assert (without[0] - whole).abs().mean() > 1e-2
