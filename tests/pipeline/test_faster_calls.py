"""Ways of others to faster calls: they work with the instances' layers, and change no picture."""

import copy

import torch

from tests.tiny_pipeline import scene_of

CALL = {"seed": 0, "num_inference_steps": 3, "guidance_scale": 2.0, "scheduler": "ddim", "output_type": "latent"}


def latents(pipe, **options):
    return pipe(scene_of(3), **{**CALL, **options}).latents


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_projections_are_fused_and_taken_apart(pipe):
    own, expected = copy.deepcopy(pipe), latents(pipe, mis_fraction=0.4)
    own.fuse_qkv_projections()
    assert all(block.fused_projections for block in own.unet.modules() if hasattr(block, "fused_projections"))
    close(latents(own, mis_fraction=0.4), expected)
    own.unfuse_qkv_projections()
    assert torch.equal(latents(own, mis_fraction=0.4), expected)
