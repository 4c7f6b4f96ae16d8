"""Exactness: padding collapsed, keys and values cached, slots permuted or added, batches joined and cut."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from instancediffusion.adapter import GatedSelfAttention, Grounding, InstanceAdapter
from instancediffusion.conditioning import KINDS, LocationTensors
from instancediffusion.conditioning.attention_mask import AttentionBias
from instancediffusion.errors import ModelError
from tests.tiny import random_locations, tiny_adapter, tiny_unet

SLOTS = 30


@pytest.fixture(scope="module")
def model():
    unet = tiny_unet()
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    return unet, adapter


def captions_for(batch, slots, seed=3):
    return torch.randn(batch, slots, 32, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def eps(unet, grounding, batch=None):
    batch = grounding.batch_size if batch is None else batch
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).expand(batch, -1, -1, -1)
    context = torch.ones(batch, 6, 32)
    return unet(x, 300, encoder_hidden_states=context, cross_attention_kwargs={"grounding": grounding}).sample


@torch.no_grad()
def test_collapsed_padding_and_cached_keys_equal_the_long_way():
    """One token with weight log(30 - n) against 30 - n copies, and cached keys against a fused self-attention."""
    adapter = tiny_adapter(tiny_unet())
    tokens = adapter.tokens(random_locations(1, 3), captions_for(1, 3))
    layer = next(iter(adapter.layers.values()))
    channels = layer.linear.out_features
    x = torch.randn(1, 256, channels, generator=torch.Generator().manual_seed(1))
    bias = AttentionBias(tokens.log_weight[:, None, None])
    found = layer(x, *layer.keys_values(tokens.tokens), bias, 1.0)

    groups = []
    for start in range(0, len(KINDS) * 4, 4):
        rows = tokens.tokens[:, start : start + 4]
        groups += [rows[:, :3], rows[:, 3:].expand(-1, SLOTS - 3, -1)]
    everything = torch.cat([*groups, tokens.tokens[:, len(KINDS) * 4 :]], dim=1)
    rows = layer.norm1(torch.cat([x, layer.linear(everything)], dim=1))
    q, k, v = (
        part(rows).unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in (layer.to_q, layer.to_k, layer.to_v)
    )
    weights = (q @ k.transpose(-1, -2) / (channels / layer.heads) ** 0.5).softmax(-1)
    attended = layer.to_out((weights @ v).transpose(1, 2).flatten(2)[:, :256])
    expected = x + layer.alpha_attn.tanh() * attended
    expected = expected + layer.alpha_dense.tanh() * layer.ff(layer.norm2(expected))
    torch.testing.assert_close(x + found, expected, atol=1e-5, rtol=0)


def permuted(locations, order):
    index = torch.tensor(order)

    def take(value):
        return None if value is None else value[:, index]

    values = {name: take(value) for name, value in vars(locations).items() if name != "present"}
    # The segmentation input has a channel for each slot; its channels stay with their instances.
    return LocationTensors(**values, present={kind: take(value) for kind, value in locations.present.items()})


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(5)), rule=st.sampled_from(["none", "grounding", "full"]), seed=st.integers(0, 99))
def test_order_of_slots_does_not_matter(model, order, rule, seed):
    unet, adapter = model
    locations, captions = random_locations(1, 5, seed), captions_for(1, 5)
    # Four channels, five instances: the last is left out of the segmentation input.
    distinct = replace(locations, segmentation_channel=torch.tensor([[0, 1, 2, 3, -1]]))
    with torch.no_grad():
        first = adapter(distinct, captions, instance_mask=rule)
        second = adapter(permuted(distinct, order), captions[:, list(order)], instance_mask=rule)
    torch.testing.assert_close(eps(unet, second), eps(unet, first), atol=2e-5, rtol=0)


@settings(max_examples=12, deadline=None)
@given(extra=st.integers(1, 40), rule=st.sampled_from(["none", "grounding", "full"]), seed=st.integers(0, 99))
def test_absent_slots_change_nothing(model, extra, rule, seed):
    unet, adapter = model
    locations, captions = random_locations(1, 3, seed), captions_for(1, 3)
    with torch.no_grad():
        plain = adapter(locations, captions, instance_mask=rule)
        padded = adapter(
            locations.pad(3 + extra), functional.pad(captions, (0, 0, 0, extra), value=7.0), instance_mask=rule
        )
    torch.testing.assert_close(eps(unet, padded), eps(unet, plain), atol=2e-5, rtol=0)


@pytest.mark.parametrize("rule", ["none", "grounding", "full"])
def test_joined_batches_equal_single_images(model, rule):
    unet, adapter = model
    with torch.no_grad():
        singles = [adapter(random_locations(1, n, seed=n), captions_for(1, n), instance_mask=rule) for n in (1, 4, 2)]
        singles.append(adapter(LocationTensors.empty(1), captions_for(1, 0), instance_mask=rule))
    joined = Grounding.cat(singles)
    together = eps(unet, joined)
    for row, single in enumerate(singles):
        torch.testing.assert_close(together[row], eps(unet, single)[0], atol=2e-5, rtol=0)
        alone = joined.single(row)
        assert alone.log_weight.shape[1] <= single.log_weight.shape[1]
        torch.testing.assert_close(eps(unet, alone), eps(unet, single), atol=2e-5, rtol=0)


def test_more_instances_than_slots(model):
    """More than 30 instances: the padding token is hidden, and masks beyond the channels are not drawn."""
    unet, adapter = model
    locations = random_locations(1, 40)
    with torch.no_grad():
        grounding = adapter(locations, captions_for(1, 40))
        fewer = adapter(locations, captions_for(1, 40, seed=4))
    padding = grounding.log_weight[(grounding.slot == -1) & (grounding.kind < len(KINDS))]
    assert (padding == -torch.inf).all()
    found = eps(unet, grounding)
    assert torch.isfinite(found).all()
    assert not torch.equal(found, eps(unet, fewer))


def test_z_order_starts_neutral_and_then_matters():
    unet = tiny_unet()
    adapter = tiny_adapter(unet)
    locations, captions = random_locations(1, 3), captions_for(1, 3)
    locations.z_known[:] = True
    swapped = replace(locations, z_order=locations.z_order.flip(1))
    with torch.no_grad():
        assert not torch.equal(adapter.tokens(locations, captions).tokens, adapter.tokens(swapped, captions).tokens)
        adapter.unifusion.z_order.weight.zero_()
        assert torch.equal(adapter.tokens(locations, captions).tokens, adapter.tokens(swapped, captions).tokens)


def test_every_kind_of_location_changes_its_tokens():
    adapter = tiny_adapter(tiny_unet())
    locations, captions = random_locations(1, 2), captions_for(1, 2)
    for kind in KINDS:
        locations.present[kind][:] = True
    with torch.no_grad():
        full = adapter.tokens(locations, captions).tokens
        for position, kind in enumerate(KINDS):
            changed = (adapter.tokens(locations.drop(kind), captions).tokens != full).any(-1)[0]
            group = slice(position * 3, position * 3 + 2)
            assert changed[group].all()
            assert not changed[: position * 3].any()


def test_an_adapter_that_drew_beside_the_attention_is_refused(tmp_path):
    tiny_adapter(tiny_unet()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "cell_features": 256}))
    with pytest.raises(ModelError, match=r"cell_features .* are no part of this version"):
        InstanceAdapter.from_pretrained(tmp_path)


def test_gate_heads_must_divide_channels():
    with pytest.raises(ValueError, match="does not divide"):
        GatedSelfAttention(10, 4, 3)


def test_token_weight_counts_as_that_many_copies():
    """A weight of w on every token of an instance equals w copies of each."""
    unet = tiny_unet()
    single, heavy = tiny_adapter(unet), tiny_adapter(unet, token_weight=3.0)
    locations, captions = random_locations(1, 2), captions_for(1, 2)
    with torch.no_grad():
        tokens, weighted = single.tokens(locations, captions), heavy.tokens(locations, captions)
    assert torch.equal(tokens.tokens, weighted.tokens)
    used = (tokens.slot >= 0)[0]
    layer = next(iter(single.layers.values()))
    keys, values = layer.keys_values(tokens.tokens)
    x = torch.randn(1, 9, layer.channels, generator=torch.Generator().manual_seed(0))

    def run(columns, weights):
        bias = AttentionBias(weights[:, None, None, columns])
        return layer(x, keys[:, columns], values[:, columns], bias, 1.0)

    every = torch.arange(used.numel())
    copies = torch.cat([every, every[used], every[used]])
    with torch.no_grad():
        torch.testing.assert_close(run(every, weighted.log_weight), run(copies, tokens.log_weight), atol=1e-5, rtol=0)


def test_caption_shortcut_reaches_used_tokens_only():
    adapter = tiny_adapter(tiny_unet(), caption_shortcut=True)
    locations = random_locations(1, 2).pad(3)
    first, second = captions_for(1, 3), captions_for(1, 3, seed=4)
    with torch.no_grad():
        for mlp in adapter.unifusion.mlps.values():
            mlp[4].weight.zero_()
        changed = (adapter.tokens(locations, first).tokens != adapter.tokens(locations, second).tokens).any(-1)[0]
    slots = adapter.tokens(locations, first).slot[0]
    assert torch.equal(changed, (slots == 0) | (slots == 1))
