"""Visual tokens merged for attention, never across the border of an instance."""

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig

from instancediffusion import Box, Instance, Point, Scene
from instancediffusion.adapter import token_merging
from instancediffusion.adapter.token_merging import TokenMerging
from instancediffusion.conditioning import locations_from_scenes
from tests.tiny_pipeline import scene_of

CALL = {
    "seed": 0, "num_inference_steps": 3, "guidance_scale": 2.0, "scheduler": "ddim", "mis_fraction": 0.0,
    "output_type": "latent",
}  # fmt: skip
TOLERANCE = {"rtol": 0, "atol": 1e-4}
SIDE = 48  # 2,304 visual tokens
HALF, QUARTER = Box(0, 0, 0.5 + 1 / SIDE, 1), Box(0, 0, 1, 0.25 + 1 / SIDE)  # each ends within a patch


@pytest.fixture
def small_maps(monkeypatch):
    """The tiny network's maps are large enough."""
    monkeypatch.setattr(token_merging, "LEAST_TOKENS", 64)


def merging_of(*scenes, fraction=0.75):
    return TokenMerging(fraction, locations_from_scenes(scenes)).on_maps([(SIDE, SIDE)]).on_map(SIDE, SIDE)


def test_no_border_is_crossed_and_all_else_may_merge():
    """Even of tokens that are all alike, at the largest fraction; overlaps are regions of their own."""
    two = Scene("x", (Instance("a", box=HALF), Instance("b", box=QUARTER)), 512, 512)
    merged = merging_of(two, Scene("x", (), 512, 512)).of(torch.ones(2, SIDE * SIDE, 4))
    columns, rows = torch.arange(SIDE) <= SIDE // 2, torch.arange(SIDE) <= SIDE // 4
    label = (columns[None] + 2 * rows[:, None]).flatten()
    slot = merged.slots[0]
    first = label.new_zeros(len(merged.kept[0])).scatter_reduce(0, slot, label, "amin", include_self=False)
    last = label.new_zeros(len(merged.kept[0])).scatter_reduce(0, slot, label, "amax", include_self=False)
    assert torch.equal(first, last)
    patches = (SIDE // 2) ** 2
    # A patch on a border has as many merged tokens as it has halves; all others have one.
    assert len(merged.kept[1]) == patches
    assert patches < len(merged.kept[0]) <= patches + 3 * SIDE // 2 * 2
    assert all(torch.equal(merged.slots[0][kept], torch.arange(len(kept))) for kept in merged.kept[:1])


def test_the_most_alike_are_merged_and_get_the_result_of_their_mean():
    torch.manual_seed(0)
    tokens = torch.randn(1, SIDE * SIDE, 8)
    tokens[0, 1], tokens[0, SIDE + 3] = 2 * tokens[0, 0], tokens[0, 2]  # two pairs that point the same way
    merged = merging_of(Scene("x", (), 64, 64), fraction=2 / SIDE**2 + 1e-9).of(tokens)
    seen = []
    found = merged.attended(tokens, lambda image, rows: seen.append((image, rows)) or rows * 10)
    assert seen[0][0] == 0 and seen[0][1].shape == (1, SIDE * SIDE - 2, 8)
    expected = 10 * tokens
    expected[0, :2], expected[0, [2, SIDE + 3]] = 15 * tokens[0, 0], 10 * tokens[0, 2]
    torch.testing.assert_close(found, expected)


def test_equal_neighbours_lose_nothing(pipe, small_maps):
    """On a flat map, patches of equal tokens: attention weighs all alike, merged or not, and so do the gated layers."""
    own = copy.deepcopy(pipe)
    block = dict(own.unet.named_modules())["down_blocks.0.attentions.0.transformer_blocks.0"]
    torch.manual_seed(0)
    rows = torch.randn(1, 8, 8, block.attn1.to_q.in_features)
    rows = rows.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)
    scene = Scene("x", (Instance("a", box=Box(0, 0, 0.5, 0.5)), Instance("b", point=Point(0.5, 0.5))), 64, 64)
    adapter = own.adapter
    for rule in ("none", "grounding", "full", "visibility"):
        given = adapter(adapter.locations([scene]), torch.randn(1, 2, 32), instance_mask=rule).on_map(1, 16, 16)
        merging = TokenMerging(0.75, adapter.locations([scene])).on_map(16, 16)
        handed = {"grounding": given}
        with torch.no_grad():
            expected = block(rows, encoder_hidden_states=torch.ones(1, 2, 32), cross_attention_kwargs=handed)
            handed["merging"] = merging
            found = block(rows, encoder_hidden_states=torch.ones(1, 2, 32), cross_attention_kwargs=handed)
        # Visibility differs within a patch of a soft disc; regions and all else do not.
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-2 if rule == "visibility" else 1e-4)


def test_a_picture_is_another_and_nothing_is_left(pipe, small_maps):
    own = copy.deepcopy(pipe)
    own.set_progress_bar_config(disable=True)
    plain = own(scene_of(3), **CALL).latents
    merged = own(scene_of(3), **CALL, token_merging=0.5).latents
    assert 1e-3 < (merged - plain).abs().max() and (merged - plain).norm() < 0.5 * plain.norm()
    assert torch.equal(own(scene_of(3), **CALL).latents, plain)
    own.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_q"], init_lora_weights=False))
    assert (own(scene_of(3), **CALL, token_merging=0.5).latents - own(scene_of(3), **CALL).latents).abs().max() > 1e-3


def test_an_image_in_a_batch_is_the_image_alone(pipe, small_maps):
    """Crowded and empty ones merge different numbers of tokens; so do instances on crops."""
    crowd = tuple(
        Instance("a dog", box=Box(x / 8, y / 8, x / 8 + 0.19, y / 8 + 0.19)) for x in range(6) for y in (0, 4)
    )
    scenes = [replace(scene_of(3), instances=crowd), Scene("a cat", (), 64, 64), scene_of(4)]
    options = {**CALL, "token_merging": 0.6, "mis_fraction": 0.4, "mis_merge": "layered"}
    together = pipe(scenes, **options).latents
    for row, scene in enumerate(scenes):
        alone = pipe(scene, **options, max_batch_rows=3).latents
        torch.testing.assert_close(together[row : row + 1], alone, **TOLERANCE)


def test_small_maps_are_left_alone(pipe):
    assert torch.equal(pipe(scene_of(2), **CALL, token_merging=0.7).latents, pipe(scene_of(2), **CALL).latents)
