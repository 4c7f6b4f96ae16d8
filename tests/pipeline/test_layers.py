import numpy as np
import pytest
import torch

from instancediffusion import Box, Instance, Mask, Point, Scene, Scribble
from instancediffusion.conditioning import locations_from_scenes
from instancediffusion.conditioning.visibility import nearer, reversed_order, stated_overlaps
from instancediffusion.pipeline.framing import framed
from instancediffusion.pipeline.layers import LatentCanvas, latent_locations, layered_merge
from tests.tiny_pipeline import disc

CELLS = (32, 32)
BEST = {"num_inference_steps": 4, "guidance_scale": 2.0, "scheduler": "ddim"}
A, B = Box(0.1, 0.2, 0.6, 0.8), Box(0.4, 0.3, 0.9, 0.9)
SHARED = (slice(11, 25), slice(14, 18))  # cells inside both


def scene(first, second):
    return Scene("x", (Instance("a", box=A, z_order=first), Instance("b", box=B, z_order=second)), 256, 256)


def weights_of(one):
    return layered_merge(one, LatentCanvas(CELLS, 4)).weights


def test_weights_are_shares_of_each_cell():
    for one in (scene(0, 1), scene(None, None), scene(1, 1), Scene("x", (), 64, 64)):
        weights = weights_of(one)
        torch.testing.assert_close(weights.sum(0), torch.ones(CELLS))
        assert (weights >= 0).all()


def test_the_nearer_layer_owns_the_overlap():
    weights = weights_of(scene(1, 0))[(slice(None), *SHARED)]
    assert (weights[1] > 0.8).all()
    assert torch.equal(weights_of(scene(0, 1))[(slice(None), *SHARED)][2] > 0.8, weights[1] > 0.8)


def test_layers_of_no_stated_order_share_it():
    weights = weights_of(scene(None, None))[(slice(None), *SHARED)]
    torch.testing.assert_close(weights[1], weights[2])


def test_a_canvas_nobody_claims_stays_the_scenes():
    weights = weights_of(scene(0, 1))
    assert (weights[0, :6] == 1).all()
    assert (weights[1:, 29:] == 0).all()


def test_order_matters_where_stated_ones_overlap():
    region, nowhere = (stated_overlaps(latent_locations(one, CELLS), CELLS)[0] for one in (scene(0, 1), scene(0, None)))
    assert (region[SHARED] == 1).all()
    assert region[:9].sum() == 0
    assert not nowhere.any()


def test_reversing_turns_every_pair_round():
    locations = locations_from_scenes([scene(4, -2), scene(None, 7), scene(4, -2)])
    turned = reversed_order(locations, torch.tensor([True, True, False]))
    assert locations.z_order.tolist() == [[1, 0], [0, 0], [1, 0]]
    assert turned.z_order.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert torch.equal(nearer(turned)[0], nearer(locations)[0].T)


def test_an_instance_lies_in_its_frame_where_it_lies_on_the_canvas():
    """Pixels of the crop, at the places the framed instance names, are those of the canvas."""
    frame = (0.25, 0.125, 0.75, 0.625)
    given = Instance(
        "a", box=Box(0.3, 0.2, 0.7, 0.5), point=Point(0.5, 0.25), scribble=Scribble(((0.3, 0.3), (0.7, 0.5)))
    )
    found = framed(given, frame)
    assert found.box.xyxy == pytest.approx((0.1, 0.15, 0.9, 0.75))
    assert (found.point.x, found.point.y) == pytest.approx((0.5, 0.25))
    assert found.scribble.points[1] == pytest.approx((0.9, 0.75))
    mask = disc().array
    side = mask.shape[0]
    cut = framed(Instance("a", mask=Mask.from_array(mask)), (0.5, 0.25, 1.0, 1.0)).mask.array
    assert (cut == mask[side // 4 :, side // 2 :]).all()


@pytest.mark.parametrize("kinds", [("box",), ("point",), ("scribble",), ("mask",)])
def test_layers_are_drawn_of_any_location(pipe, kinds):
    where = {
        "box": A,
        "point": Point(0.3, 0.4),
        "scribble": Scribble(((0.2, 0.2), (0.5, 0.6))),
        "mask": disc(),
    }
    instances = (
        Instance("a", z_order=0, **{k: where[k] for k in kinds}),
        Instance("b", z_order=1, box=B),
    )
    settings = {**BEST, "mis_fraction": 0.5, "mis_merge": "layered"}
    drawn = pipe(Scene("x", instances, 64, 64), seed=0, instance_mask="visibility", **settings)
    plain = pipe(Scene("x", instances, 64, 64), seed=0, **{**settings, "mis_fraction": 0.0})
    assert torch.isfinite(drawn.latents).all()
    assert not torch.equal(drawn.latents, plain.latents)
    halves = 1 if drawn.settings.guidance_scale == 1 else 2
    assert plain.network_rows < drawn.network_rows <= plain.network_rows + halves * 2 * 2


def test_order_guidance_needs_a_stated_overlap(pipe):
    settings = {**BEST, "order_guidance_scale": 1.0, "order_guidance_fraction": 0.5, "instance_mask": "visibility"}
    for order, extra in (((0, 1), 1), ((None, None), 0)):
        plain = pipe(scene(*order), seed=0, **{**settings, "order_guidance_scale": 0.0})
        guided = pipe(scene(*order), seed=0, **settings)
        assert guided.network_rows == plain.network_rows + extra * (BEST["num_inference_steps"] // 2)


@pytest.mark.parametrize("size", [(96, 64), (100, 33), (24, 24), (16, 300)])
def test_masks_of_any_canvas_are_cut_for_layers(pipe, size):
    """Sides of a crop's mask and canvas were rounded in two ways, or fell below the least of a canvas: it stopped."""
    width, height = size
    for x in range(0, width // 2, 7):
        bitmap = np.zeros((height, width), bool)
        bitmap[height // 3 : 2 * height // 3, x : x + width // 2] = True
        one = Scene("x", (Instance("a", mask=Mask.from_array(bitmap)),), width, height)
        pipe(one, seed=0, num_inference_steps=1, mis_merge="layered", mis_fraction=1.0, output_type="latent")
