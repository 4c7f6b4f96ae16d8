"""What depends on no step is computed once, and kept, it is what it was."""

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig

from instancediffusion.adapter import grounding, scaleu
from instancediffusion.adapter.backbones import backbone_of
from instancediffusion.adapter.backbones import unet as unets
from instancediffusion.adapter.gated_attention import LEAST_APART, attend
from instancediffusion.conditioning.attention_mask import AttentionBias
from tests.tiny import random_locations, tiny_adapter, tiny_unet
from tests.tiny_pipeline import scene_of

FEW = {"guidance_scale": 2.0, "scheduler": "ddim", "mis_fraction": 0.5, "seed": 0, "max_batch_rows": 3}


def counted(monkeypatch, module, name):
    """Count the calls of a function of a module."""
    calls, own = [], getattr(module, name)

    def counting(*args, **kwargs):
        calls.append(args)
        return own(*args, **kwargs)

    monkeypatch.setattr(module, name, counting)
    return calls


def projections(monkeypatch, unet):
    """The texts each cross-attention's keys are computed of, without touching the layers."""
    wanted = {id(block.attn2.to_k) for _, block in unets.transformer_blocks(unet)}
    rows, own = [], torch.nn.Linear.forward

    def forward(self, x):
        if id(self) in wanted:
            rows.append(len(x))
        return own(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    return rows, len(wanted)


@pytest.mark.parametrize(("merge", "rule"), [("mean", "none"), ("mean", "visibility"), ("layered", "grounding")])
def test_more_steps_compute_nothing_again(pipe, monkeypatch, merge, rule):
    """From the fourth instance on all of it was computed anew in each step: rows no longer fitted into one call."""
    scaleu._basis.cache_clear()
    found = {}
    for steps in (4, 12):
        with monkeypatch.context() as patch:
            counts = [counted(patch, grounding, "attention_bias"), counted(patch, scaleu, "_new_basis")]
            texts, layers = projections(patch, pipe.unet)
            pipe(scene_of(4), num_inference_steps=steps, mis_merge=merge, instance_mask=rule, **FEW)
            found[steps] = [len(calls) for calls in counts] + [sum(texts)]
    # Prompt, negative prompt and four captions, in each layer.
    assert found[4][2] == found[12][2] == 6 * layers
    assert found[4][0] == found[12][0] > 0
    assert found[4][1] > found[12][1] == 0
    if merge == "mean":  # whole canvas: two maps; four calls of ten rows, then one of two
        assert found[4][0] <= 2 * 5


def test_keys_of_the_prompt_are_what_the_layers_compute(pipe, monkeypatch):
    for prompt in ("a meadow", "a meadow " * 12):  # the second is read in windows: texts of different lengths
        scene = replace(scene_of(3), prompt=prompt)
        kept = pipe(scene, num_inference_steps=3, **FEW).latents
        with monkeypatch.context() as patch:
            patch.setattr(unets, "is_plain", lambda attention: False)
            texts, layers = projections(patch, pipe.unet)
            stock = pipe(scene, num_inference_steps=3, **FEW).latents
        assert len(texts) > layers * 3
        torch.testing.assert_close(kept, stock, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", ["lora", "hook", "wrapped"])
def test_layers_that_are_no_plain_maps_compute_their_own(pipe, monkeypatch, change):
    own = copy.deepcopy(pipe)
    own.set_progress_bar_config(disable=True)
    plain = own(scene_of(2), num_inference_steps=2, **FEW).latents
    layers = [block.attn2 for _, block in unets.transformer_blocks(own.unet)]
    called = []
    if change == "lora":
        own.unet.add_adapter(LoraConfig(r=2, target_modules=["attn2.to_k", "attn2.to_v"], init_lora_weights=False))
    for layer in layers:
        if change == "hook":
            layer.register_forward_hook(lambda *_: called.append(1))
        if change == "wrapped":
            inner = layer.to_v.forward
            layer.to_v.forward = lambda x, inner=inner: called.append(1) or 2 * inner(x)
    changed = own(scene_of(2), num_inference_steps=2, **FEW).latents
    if change != "lora":
        assert len(called) >= 2 * len(layers)
    assert torch.allclose(changed, plain) == (change == "hook")
    monkeypatch.setattr(unets, "is_plain", lambda attention: False)
    torch.testing.assert_close(changed, own(scene_of(2), num_inference_steps=2, **FEW).latents)


def test_a_later_call_sees_new_weights(pipe):
    """Nothing that is kept outlives its call."""
    own = copy.deepcopy(pipe)
    own.set_progress_bar_config(disable=True)
    before = own(scene_of(1), num_inference_steps=2, **FEW).latents
    with torch.no_grad():
        for _, block in unets.transformer_blocks(own.unet):
            block.attn2.to_v.weight.mul_(-3)
    after = own(scene_of(1), num_inference_steps=2, **FEW).latents
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(pipe(scene_of(1), num_inference_steps=2, **FEW).latents, before)


def test_maps_known_beforehand_are_those_of_the_unet(pipe, monkeypatch):
    """Also one that only the decoder attends over: what instances say of it was computed anew by each of its layers."""
    seen = set()
    own = grounding.Grounding.on_map

    def on_map(self, batch, height, width):
        seen.add((height, width))
        return own(self, batch, height, width)

    monkeypatch.setattr(grounding.Grounding, "on_map", on_map)
    for side in ((64, 64), (72, 88)):
        seen.clear()
        pipe(scene_of(1), height=side[0], width=side[1], num_inference_steps=1, seed=0)
        assert seen == set(unets.map_sizes(pipe.unet, side[0] // 4, side[1] // 4))
    unet = tiny_unet(down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"))
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    seen.clear()
    given = adapter(random_locations(1, 2), torch.randn(1, 2, 32))
    with torch.no_grad():
        backbone_of(unet).call(unet, torch.randn(1, 4, 18, 22), torch.tensor(5), torch.randn(1, 3, 32), given)
    assert seen == set(unets.map_sizes(unet, 18, 22)) == {(18, 22), (9, 11)}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_attention_apart_is_attention_together(dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    query, keys, values = (draw(2, 3, LEAST_APART, 8) for _ in range(3))
    own_keys, own_values, told = draw(2, 3, 5, 8), draw(2, 3, 5, 8), 3 * draw(2, 1, LEAST_APART, 5)
    told[0, :, ::3] = -torch.inf  # visual tokens that see no grounding token
    told[:, :, :, 1] = -torch.inf
    parts = (query, keys, values, own_keys, own_values)
    with torch.no_grad():
        apart = attend(*parts, AttentionBias(told))
        hidden = attend(*parts, AttentionBias(torch.full_like(told, -torch.inf)))
    with torch.enable_grad():  # the way that has gradients
        together = attend(*parts, AttentionBias(told))
    logits = torch.cat([query @ keys.mT, query @ own_keys.mT], -1).double() * 8**-0.5
    logits[..., LEAST_APART:] += told
    expected = logits.softmax(-1) @ torch.cat([values, own_values], -2).double()
    torch.testing.assert_close(apart.double(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(together.double(), expected, rtol=0, atol=tolerance)
    alone = (logits[..., :LEAST_APART].softmax(-1) @ values.double()).to(dtype)
    torch.testing.assert_close(hidden, alone, rtol=0, atol=tolerance)


def test_the_basis_of_scaleu_serves_gradients_too():
    scaleu._basis.cache_clear()
    layer = scaleu.ScaleU(4)
    joined = torch.randn(1, 8, 6, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first = layer(joined)
    second = layer(joined)
    second.sum().backward()
    assert torch.equal(first, second.detach())
    assert torch.isfinite(layer.s.grad).all()
