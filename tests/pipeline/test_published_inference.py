"""Two details of the published inference, each by a switch of its own."""

from dataclasses import replace

import pytest
import torch

from instancediffusion.errors import SettingsError
from tests.tiny_pipeline import disc, scene_of

FAST = {"num_inference_steps": 2, "guidance_scale": 2.0, "mis_fraction": 0.5}


def latents(pipe, scene, **options):
    return pipe(scene, seed=0, output_type="latent", **{**FAST, **options}).latents


def test_absent_locations(pipe):
    mixed = scene_of(3)  # the third has a scribble, the others none
    assert (latents(pipe, mixed) - latents(pipe, mixed, absent_locations="published")).abs().max() > 1e-3
    alike = scene_of(1)  # a box alone: no group is kept that it lacks
    assert torch.equal(latents(pipe, alike), latents(pipe, alike, absent_locations="published"))
    with pytest.raises(SettingsError, match="absent_locations: 'zeros' is not one of null, published"):
        latents(pipe, mixed, absent_locations="zeros")


def test_segmentation_order(pipe):
    scene = scene_of(2)
    masked = replace(scene, instances=(*scene.instances, replace(scene.instances[0], box=None, mask=disc())))
    assert (latents(pipe, masked) - latents(pipe, masked, segmentation_order="published")).abs().max() > 1e-4
    first = replace(masked, instances=(masked.instances[2], *masked.instances[:2]))
    torch.testing.assert_close(
        latents(pipe, first), latents(pipe, first, segmentation_order="published"), atol=1e-5, rtol=0
    )
