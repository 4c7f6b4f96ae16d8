"""Captions read where their instances are: `mis_merge="regional"`."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_processor import Attention
from peft import LoraConfig

from instancediffusion import Box, Instance, Scene
from instancediffusion.adapter.backbones import unet as unets
from instancediffusion.adapter.regional import RegionalCaptions
from instancediffusion.errors import ModelError
from instancediffusion.sampling import count_rows
from tests.tiny_pipeline import scene_of, tiny_scheduler

CALL = {"seed": 0, "num_inference_steps": 4, "guidance_scale": 2.0, "scheduler": "ddim", "mis_merge": "regional"}
TOLERANCE = {"rtol": 0, "atol": 1e-4}
EVERYWHERE = Box(0, 0, 1, 1)


def latents(pipe, scene, **options):
    return pipe(scene, **{**CALL, "mis_fraction": 0.5, "output_type": "latent", **options}).latents


@pytest.mark.parametrize("given", ["texts", "keys"])
def test_it_is_the_weighted_sum_of_an_attention_to_each_text(given):
    """Of two images, the first with two overlapping captions of which one is shorter, the second with none."""
    torch.manual_seed(0)
    size, width = (4, 6), 16
    layer = Attention(width, cross_attention_dim=8, heads=4, dim_head=4).eval()
    tokens, prompt, captions = torch.randn(2, 24, width), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    weights = torch.zeros(2, *size)
    weights[0, :3, :4], weights[1, 2:, 1:] = 0.6, 0.4
    mask = torch.tensor([[0.0] * 5, [0.0] * 3 + [-1e4] * 2])[:, None]
    with torch.no_grad():
        stock = layer(tokens, prompt)
        alone = [layer(tokens[:1], captions[:1]), layer(tokens[:1], captions[1:, :3])]
        shares = weights.flatten(1)[..., None]
        expected = stock[:1] * (1 - shares.sum(0)) + sum(share * own for share, own in zip(shares, alone, strict=True))
        keys = {"a": (layer.to_k(captions), layer.to_v(captions))} if given == "keys" else {}
        regional = RegionalCaptions(
            captions,
            torch.tensor([0, 0]),
            lambda asked: [torch.nn.functional.interpolate(weights[None], asked)[0], torch.zeros(0, *asked)],
            mask,
            keys,
        ).on_maps([(2, 3), size])
        layer.__class__ = unets.UngroundedAttention
        found = layer(tokens, prompt, captions=(regional.on_map(*size), "a"))
        torch.testing.assert_close(found[:1], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[1:], stock[1:], rtol=1e-5, atol=1e-6)
        with pytest.raises(ModelError, match=r"a sees 24 visual tokens of a map of 6.*mis_merge"):
            layer(tokens, prompt, captions=(regional.on_map(2, 3), "a"))


@pytest.mark.filterwarnings("ignore:.*it has .* tokens")  # of a caption, only the first window is pooled
def test_a_caption_of_all_the_canvas_is_the_prompt(pipe):
    """The whole network, with texts of several windows, with LoRA layers, in a part of the steps and in all."""
    words, options = "a red cat " * 6, {"grounding_fraction": 0.0, "mis_fraction": 1.0}
    plain = Scene("a dog", (), 64, 64)
    told = replace(plain, instances=(Instance(words, box=EVERYWHERE),))
    own = copy.deepcopy(pipe)
    own.set_progress_bar_config(disable=True)
    for change in (None, "lora"):
        if change:
            own.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_q"], init_lora_weights=False))
        expected = latents(own, replace(plain, prompt=words), **options)
        torch.testing.assert_close(latents(own, told, **options), expected, **TOLERANCE)
        other = latents(own, plain, **options)
        assert (other - expected).abs().max() > 1e-2
        part = latents(own, told, **{**options, "mis_fraction": 0.5})
        assert min((part - each).abs().max() for each in (other, expected)) > 1e-3


def test_nothing_is_read_where_no_instance_is(pipe):
    empty = Scene("some things", (), 64, 64)
    assert torch.equal(latents(pipe, empty), latents(pipe, empty, mis_fraction=0.0))
    with_captions, without = latents(pipe, scene_of(3)), latents(pipe, scene_of(3), mis_fraction=0.0)
    assert (with_captions - without).abs().max() > 1e-3


def test_the_order_of_the_file_does_not_matter(pipe):
    ordered = [replace(own, z_order=z) for z, own in enumerate(scene_of(4).instances)]
    found = [
        latents(pipe, replace(scene_of(4), instances=order), instance_mask="visibility")
        for order in itertools.islice(itertools.permutations(ordered), 0, 24, 9)
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], **TOLERANCE)


def test_the_nearer_caption_is_read_in_an_overlap(pipe):
    """Two of the whole canvas: the picture is nearly that of the nearer one alone."""
    cat, dog = Instance("a red cat", box=EVERYWHERE), Instance("a dog", box=EVERYWHERE)
    options = {"grounding_fraction": 0.0, "mis_fraction": 1.0}

    def of(*instances):
        return latents(pipe, Scene("things", instances, 64, 64), **options)

    alone, other = of(cat), of(dog)
    near, far = (of(replace(cat, z_order=z), replace(dog, z_order=1 - z)) for z in (1, 0))
    assert (near - alone).norm() < 0.5 * (near - other).norm()
    assert (far - other).norm() < 0.5 * (far - alone).norm()


def test_an_image_in_a_batch_is_the_image_alone(pipe):
    scenes = [scene_of(1), scene_of(4), Scene("a " * 40, (), 64, 64)]
    for options in ({}, {"cache_interval": 2}, {"max_batch_rows": 3}):
        together = latents(pipe, scenes, **options)
        for row, scene in enumerate(scenes):
            torch.testing.assert_close(together[row : row + 1], latents(pipe, scene, **options), **TOLERANCE)


def test_it_costs_no_network_call(pipe):
    out = pipe(scene_of(4), **CALL, mis_fraction=0.5)
    assert out.network_rows == count_rows(tiny_scheduler(), 4, 0, [0], 2.0) - 2  # PLMS has one call more


def test_deep_features_made_with_captions_serve_no_call_without(pipe):
    """The end of the regions begins with a whole call: with as many steps as the interval, both halves have one."""
    ran, own = [], copy.deepcopy(pipe)
    own.set_progress_bar_config(disable=True)
    own.unet.mid_block.register_forward_hook(lambda *_: ran.append(1))
    latents(own, scene_of(2), cache_interval=4, grounding_fraction=1.0)
    assert len(ran) == 2


def test_layers_of_their_own_take_its_place(pipe):
    kept = pipe(scene_of(2), **CALL, mis_fraction=0.5, layers=True)
    layered = pipe(scene_of(2), **{**CALL, "mis_merge": "layered"}, mis_fraction=0.5, layers=True)
    torch.testing.assert_close(kept.latents, layered.latents, **TOLERANCE)
