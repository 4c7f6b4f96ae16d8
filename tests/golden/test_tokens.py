"""UniFusion against the published class: five settings, sixteen drop patterns, one to thirty instances."""

import itertools
from dataclasses import replace

import pytest
import torch

from instancediffusion.adapter import fourier_features
from instancediffusion.adapter.scaleu import scale_low_frequencies
from instancediffusion.conditioning import KINDS, LocationTensors

from .scenes import SETTINGS, locations

TOLERANCE = 5e-6


@torch.no_grad()
def published_layout(components, places, captions):
    """Our tokens written out as the published 184: padding repeated up to 30 a kind."""
    found = components.adapter.tokens(places, captions)
    used = int(places.used.sum())
    groups, end = [], len(KINDS) * (places.slots + 1)
    for start in range(0, end, places.slots + 1):
        group = found.tokens[:, start : start + places.slots + 1]
        groups += [group[:, :used], group[:, -1:].expand(-1, 30 - used, -1)]
    return torch.cat([*groups, found.tokens[:, end:]], dim=1)


@pytest.mark.parametrize(("name", "scene"), [("scene3", "scene"), ("instance1", "scene/instance/1")])
@pytest.mark.parametrize("setting", SETTINGS)
def test_tokens_of_the_five_settings(components, golden, name, scene, setting):
    places = locations(golden, scene, SETTINGS[setting])
    found = published_layout(components, places, golden(f"{scene}/text_embeddings"))
    torch.testing.assert_close(found, golden(f"tokens/{name}/{setting}/tokens"), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("setting", SETTINGS)
def test_tokens_without_instances(components, golden, setting):
    found = published_layout(components, LocationTensors.empty(1), torch.zeros(1, 0, 768))
    torch.testing.assert_close(found, golden(f"tokens/null/{setting}/tokens"), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pattern", ["".join(flags) for flags in itertools.product("01", repeat=4)])
def test_tokens_of_all_drop_patterns(components, golden, pattern):
    # The published code keeps the boxes where all kinds would be dropped.
    places = locations(golden, "scene", "0111" if pattern == "1111" else pattern)
    found = published_layout(components, places, golden("scene/text_embeddings"))
    name = "tokens/drop_" + "".join(letter + flag for letter, flag in zip("bpsm", pattern, strict=True))
    torch.testing.assert_close(found, golden(f"{name}/tokens"), atol=TOLERANCE, rtol=0)


def test_tokens_with_all_thirty_slots_used(components, golden):
    places = locations(golden, "scene/scene30")
    found = published_layout(components, places, golden("scene/scene30/text_embeddings"))
    expected = golden("tokens/scene30/scribble/tokens")
    # Its bitmaps were not kept, so the 64 segmentation tokens at the end cannot be compared.
    torch.testing.assert_close(found[:, :120], expected[:, :120], atol=TOLERANCE, rtol=0)


def test_absent_locations_as_published(components, golden):
    """A used slot without a kind, in a kept group, is fed the features of zeros; padding is fed the null feature."""
    places = locations(golden, "scene", "0000")
    captions = golden("scene/text_embeddings")
    absent = {"scribble": 1, "mask": 0}
    present = {kind: flags.clone() for kind, flags in places.present.items()}
    for kind, slot in absent.items():
        present[kind][:, slot] = False
    partial = replace(places, present=present)
    kept = torch.tensor([[True, True, True, True]])
    net = components.adapter.unifusion
    with torch.no_grad():
        tokens = components.adapter.tokens(partial, captions, kept).tokens
        null = components.adapter.tokens(partial, captions, ~kept).tokens
        for kind, values in (("scribble", places.scribbles.flatten(2)), ("mask", places.mask_points.flatten(2))):
            # Written out as published, on 30 slots: values of absent slots are zeros, and the gate is an OR.
            padded = torch.nn.functional.pad(values * present[kind][..., None], (0, 0, 0, 27))
            masks = torch.tensor([[1.0] * 3 + [0.0] * 27])[..., None]
            gate = ((padded.sum(-1, keepdim=True) + masks) > 0).float()
            features = gate * fourier_features(padded, 16) + (1 - gate) * net.null_locations[kind]
            texts = torch.nn.functional.pad(captions, (0, 0, 0, 27)) * masks + (1 - masks) * net.null_caption
            expected = net.mlps[kind](torch.cat([texts, features], dim=-1))
            start = 4 * KINDS.index(kind)
            torch.testing.assert_close(tokens[:, start : start + 4], expected[:, :4], atol=TOLERANCE, rtol=0)
            slot = start + absent[kind]
            assert (null[:, slot] - tokens[:, slot]).abs().max() > 1e-2
    assert torch.equal(
        components.adapter.tokens(partial, captions).tokens, components.adapter.tokens(partial, captions, ~kept).tokens
    )


def test_segmentation_rows(components, golden):
    encoder = components.adapter.unifusion.mask_encoder
    bitmaps = torch.zeros(1, 30, 512, 512)
    bitmaps[0, :3] = golden("scene/segs_first3_uint8")
    with torch.no_grad():
        found = encoder.encode(bitmaps)
    expected = golden("tokens/parts/seg_tokens_reshaped")  # its first rows
    torch.testing.assert_close(found[:, : expected.shape[1]], expected, atol=TOLERANCE, rtol=1e-5)


def test_fourier_features(golden):
    found = fourier_features(golden("misc/fourier_embed/x"), 16)
    torch.testing.assert_close(found, golden("misc/fourier_embed/out16"), atol=2e-6, rtol=0)


@pytest.mark.parametrize("case", range(8))
def test_low_frequency_scaling_against_the_fourier_filter(golden, case):
    found = scale_low_frequencies(golden(f"misc/fourier/{case}/x"), golden(f"misc/fourier/{case}/scale"))
    torch.testing.assert_close(found, golden(f"misc/fourier/{case}/out"), atol=2e-6, rtol=0)
