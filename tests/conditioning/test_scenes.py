"""Scenes to tensors: what is present, what is derived, what does not depend on the order of instances."""

import numpy as np
import pytest
import torch

from instancediffusion.conditioning import KINDS, LocationTensors, locations_from_scenes
from instancediffusion.scene import Box, Instance, Mask, Point, Scene, Scribble


def disc(cx, cy, radius, height=48, width=64):
    rows, columns = np.mgrid[:height, :width]
    return Mask.from_array((columns - cx) ** 2 + (rows - cy) ** 2 < radius**2)


BOX = Instance(caption="a box", box=Box(0.1, 0.2, 0.5, 0.4), z_order=7)
POINT = Instance(caption="a point", point=Point(0.6, 0.3))
STROKE = Instance(caption="a stroke", scribble=Scribble(((0.2, 0.3), (0.4, 0.9))), z_order=-2)
SMALL = Instance(caption="a small disc", mask=disc(10, 12, 5), z_order=7)
LARGE = Instance(caption="a large disc", mask=disc(40, 30, 14), z_order=9)


def scene(*instances):
    return Scene(prompt="things", width=64, height=48, instances=instances)


def test_each_instance_has_its_own_kinds():
    locations = locations_from_scenes([scene(BOX, POINT, STROKE, SMALL)])
    for slot, kind in enumerate(KINDS):
        expected = torch.zeros(4, dtype=torch.bool)
        expected[slot] = True
        assert torch.equal(locations.present[kind][0], expected)


def test_order_is_a_dense_rank_with_ties():
    locations = locations_from_scenes([scene(BOX, POINT, STROKE, SMALL, LARGE)])
    assert locations.z_known[0].tolist() == [True, False, True, True, True]
    assert locations.z_order[0].tolist() == [1, 0, 0, 1, 2]


def test_derived_kinds_follow_from_the_location():
    locations = locations_from_scenes([scene(BOX, POINT, STROKE, LARGE)], derive=True)
    assert locations.present["point"].all()
    assert locations.present["box"][0].tolist() == [True, False, True, True]
    torch.testing.assert_close(locations.points[0, 0], torch.tensor([0.3, 0.3]))
    torch.testing.assert_close(locations.boxes[0, 2], torch.tensor([0.2, 0.3, 0.4, 0.9]))
    torch.testing.assert_close(locations.boxes[0, 3], torch.tensor([27 / 64, 17 / 48, 54 / 64, 44 / 48]))
    assert not locations.present["scribble"][0, [0, 1, 3]].any()  # nothing is made up


def test_straight_stroke_gives_no_box():
    straight = Instance(caption="a line", scribble=Scribble(((0.2, 0.5), (0.8, 0.5))))
    locations = locations_from_scenes([scene(straight)], derive=True)
    assert not locations.present["box"].any()
    torch.testing.assert_close(locations.points[0, 0], torch.tensor([0.5, 0.5]))


def test_thin_masks_keep_a_region_where_bitmaps_serve_as_regions():
    line = np.zeros((48, 640), bool)
    line[:, 333] = True
    thin = Scene(
        prompt="a line", width=640, height=48, instances=(Instance(caption="a line", mask=Mask.from_array(line)),)
    )
    locations = locations_from_scenes([thin], segmentation_size=16, segmentation_channels=0)
    assert locations.segmentations[0, 0].sum() == 16
    assert locations.segmentations[0, 0, :, 333 // 40].all()


def test_largest_mask_takes_the_first_channel():
    locations = locations_from_scenes([scene(SMALL, BOX, LARGE)], segmentation_size=64)
    assert locations.segmentation_channel[0].tolist() == [1, -1, 0]
    few = locations_from_scenes([scene(SMALL, BOX, LARGE)], segmentation_size=64, segmentation_channels=1)
    assert few.segmentation_channel[0].tolist() == [-1, -1, 0]


def test_channels_in_the_order_of_the_file_as_published():
    options = {"segmentation_size": 64, "segmentation_order": "published"}
    locations = locations_from_scenes([scene(SMALL, BOX, LARGE)], **options)
    assert locations.segmentation_channel[0].tolist() == [0, -1, 2]
    few = locations_from_scenes([scene(SMALL, BOX, LARGE)], segmentation_channels=2, **options)
    assert few.segmentation_channel[0].tolist() == [0, -1, -1]


def test_bitmaps_are_row_first():
    locations = locations_from_scenes([scene(LARGE)], segmentation_size=64)
    assert locations.segmentations[0, 0, 40, 40] == 1  # y = 30 of 48, x = 40 of 64
    assert locations.segmentations[0, 0, 10, 40] == 0


@pytest.mark.parametrize("published", [False, True])
def test_result_does_not_depend_on_neighbours(published):
    """Interior mask points are drawn at random; the draw belongs to the mask, not to its place in a list."""
    together = locations_from_scenes([scene(BOX, LARGE), scene(SMALL, STROKE, LARGE)], published_mask_points=published)
    alone = locations_from_scenes([scene(LARGE)], published_mask_points=published)
    for row, slot in ((0, 1), (1, 2)):
        assert torch.equal(together.mask_points[row, slot], alone.mask_points[0, 0])


def test_mask_points_lie_on_the_mask():
    points = locations_from_scenes([scene(LARGE)]).mask_points[0, 0].numpy()
    distance = np.hypot(points[:, 0] * 64 - 40.5, points[:, 1] * 48 - 30.5)
    assert distance.max() <= 15


def test_scenes_without_instances():
    locations = locations_from_scenes([scene(), scene(BOX)])
    assert locations.used.tolist() == [[False], [True]]
    assert LocationTensors.cat([LocationTensors.empty(2), locations]).slots == 1
