"""Visibility: laws of compositing, and an independent evaluation of its formula."""

import math

import pytest
import torch

from instancediffusion import Box, Instance, Mask, Point, Scene, Scribble
from instancediffusion.conditioning import locations_from_scenes
from instancediffusion.conditioning.attention_mask import attention_bias
from instancediffusion.conditioning.visibility import (
    BOX_OPACITY,
    LEAST,
    LOOSE_FLOOR,
    MASK_OPACITY,
    memberships,
    stated_overlaps,
    visibility,
)

SIZE = (6, 10)  # not square
LEFT, RIGHT = Box(0.0, 0.0, 0.6, 1.0), Box(0.4, 0.0, 1.0, 1.0)


def disc(centre, radius):
    y, x = (torch.arange(60) + 0.5) / 60, (torch.arange(100) + 0.5) / 100
    return Mask.from_array((((x - centre) ** 2)[None] + ((y - 0.5) ** 2)[:, None] < radius**2).numpy())


def told(*instances):
    return locations_from_scenes([Scene("x", instances, 100, 60)], segmentation_size=300, segmentation_channels=0)


def pair(first, second, **where):
    """Two instances at two places in a stated order."""
    kind, (a, b) = next(iter(where.items()))
    return told(Instance("a", z_order=first, **{kind: a}), Instance("b", z_order=second, **{kind: b}))


PLACES = [
    {"box": (LEFT, RIGHT)},
    {"mask": (disc(0.4, 0.3), disc(0.6, 0.3))},
    {"point": (Point(0.42, 0.5), Point(0.58, 0.5))},
    {"scribble": (Scribble(((0.2, 0.5), (0.6, 0.5))), Scribble(((0.4, 0.5), (0.8, 0.5))))},
]


@pytest.mark.parametrize("where", PLACES, ids=lambda w: next(iter(w)))
def test_the_nearer_one_is_untouched_and_the_other_gives_way_where_both_are(where):
    behind, alone = visibility(pair(1, 0, **where), SIZE)[0], visibility(pair(None, None, **where), SIZE)[0]
    assert torch.equal(behind[0], alone[0])
    shared = stated_overlaps(pair(1, 0, **where), SIZE)[0]
    assert (behind[1] <= alone[1]).all()
    assert shared.any()
    there = shared > 0.8 * shared.max()
    assert (behind[1] < 0.85 * alone[1])[there].all()
    torch.testing.assert_close(visibility(pair(0, 1, **where), SIZE)[0][1], alone[1])


@pytest.mark.parametrize("where", PLACES, ids=lambda w: next(iter(w)))
def test_without_an_order_nobody_hides_anybody(where):
    same = visibility(pair(1, 1, **where), SIZE)
    assert torch.equal(same, visibility(pair(None, None, **where), SIZE))
    assert torch.equal(same, visibility(pair(None, 3, **where), SIZE))
    assert not stated_overlaps(pair(None, 3, **where), SIZE).any()


def test_the_formula_cell_by_cell():
    """Three boxes and a mask in a row of depths, against the product written out for each cell."""
    boxes = [Box(0.0, 0.0, 0.55, 1.0), Box(0.2, 0.1, 0.8, 0.9), Box(0.33, 0.25, 1.0, 0.77)]
    depths = [0, 2, 1]
    instances = [Instance("x", box=b, z_order=z) for b, z in zip(boxes, depths, strict=True)]
    instances.append(Instance("x", mask=disc(0.5, 0.3), z_order=3))
    locations = told(*instances)
    member, found = memberships(locations, SIZE)[0], visibility(locations, SIZE)[0]
    opacity, ranks = [BOX_OPACITY] * 3 + [MASK_OPACITY], [*depths, 3]
    for i in range(4):
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                expected = float(member[i, row, column])
                for j in range(4):
                    if ranks[j] > ranks[i]:
                        expected *= 1 - opacity[j] * float(member[j, row, column])
                assert math.isclose(float(found[i, row, column]), max(expected, LEAST), rel_tol=1e-5, abs_tol=1e-7)


def test_membership_is_the_share_of_the_cell():
    """Summed over the cells it is the area, at any resolution."""
    for size in ((6, 10), (3, 5), (12, 7)):
        area = memberships(told(Instance("a", box=Box(0.1, 0.15, 0.75, 0.8))), size).mean().item()
        assert area == pytest.approx(0.65 * 0.65, abs=1e-6)
    mask = disc(0.5, 0.3)
    for size in ((6, 10), (12, 20)):
        area = memberships(told(Instance("a", mask=mask)), size).mean().item()
        assert area == pytest.approx(mask.array.mean(), abs=1e-6)


def test_a_thin_box_keeps_its_cells():
    member = memberships(told(Instance("a", box=Box(0.52, 0.0, 0.53, 1.0))), SIZE)
    assert member[0, 0, :, 5].eq(1).all()
    assert member.sum() == SIZE[0]


@pytest.mark.parametrize("kind", [{"point": Point(0.5, 0.5)}, {"scribble": Scribble(((0.5, 0.5), (0.5, 0.5)))}])
def test_what_lies_round_a_point_is_round_on_every_canvas(kind):
    member = memberships(told(Instance("a", **kind)), (12, 20))[0, 0]
    square = memberships(told(Instance("a", **kind)), (12, 12))[0, 0]
    middle = member[:, 4:16]
    torch.testing.assert_close(middle, middle.T)
    assert member.sum() == pytest.approx(float(square.sum()) * 20 / 12, rel=0.05)  # and covers the same share


def test_what_is_loosely_told_is_never_forbidden():
    shown = visibility(told(Instance("a", point=Point(0.1, 0.1))), SIZE)
    assert shown.min() >= LOOSE_FLOOR * 0.99
    assert shown.argmax() == 0


def test_images_of_a_batch_do_not_see_each_other():
    one, other = pair(0, 1, **PLACES[0]), pair(1, 0, **PLACES[0])
    both = type(one).cat([one, other])
    together = visibility(both, SIZE)
    torch.testing.assert_close(together, torch.cat([visibility(one, SIZE), visibility(other, SIZE)]))


def test_the_bias_is_its_logarithm():
    locations = pair(1, 0, **PLACES[0])
    weight = torch.tensor([[0.5, 0.0, -torch.inf, 0.25, 0.0]])
    slot = torch.tensor([[0, 1, 0, -1, 1]])
    bias = attention_bias(
        "visibility",
        locations,
        SIZE,
        log_weight=weight,
        slot=slot,
        kind=torch.zeros(1, 5, dtype=torch.long),
        dtype=torch.float32,
    ).joined(SIZE[0] * SIZE[1])
    cells = SIZE[0] * SIZE[1]
    assert bias.shape == (1, 1, cells, cells + 5)
    assert not bias[..., :cells].any()  # cells see each other freely: one picture
    shown = visibility(locations, SIZE)[0].flatten(1)
    for token, instance in enumerate((0, 1, 0, None, 1)):
        expected = weight[0, token] + (0 if instance is None else shown[instance].log())
        torch.testing.assert_close(bias[0, 0, :, cells + token], expected.expand(cells))
