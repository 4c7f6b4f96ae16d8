import math

import pytest
import torch

from instancediffusion.conditioning import locations_from_scenes
from instancediffusion.conditioning.frames import FRAME_FEATURES, OCTAVES, cell_frames
from instancediffusion.scene import Box, Instance, Mask, Point, Scene, Scribble

SIZE = (8, 12)
HALF = FRAME_FEATURES // 2


def frames(*instances, size=SIZE):
    """(height, width, FRAME_FEATURES) of one scene."""
    scene = Scene("a picture", tuple(instances), 96, 64)
    locations = locations_from_scenes([scene], derive=False, segmentation_size=64, segmentation_channels=0)
    return cell_frames(locations, size)[0].unflatten(0, size)


def centre_of_cell(row, column, size=SIZE):
    return (column + 0.5) / size[1], (row + 0.5) / size[0]


def waves(*values):
    angles = [[value * math.pi / 2 * 2**k for k in range(OCTAVES)] for value in values]
    return torch.tensor([f(a) for axis in angles for f in (math.sin, math.cos) for a in axis])


def test_a_cell_of_a_box_knows_its_offset_in_canvas_and_in_half_sides():
    x0, y0, x1, y1 = 0.25, 0.125, 0.75, 0.875
    found = frames(Instance("a", box=Box(x0, y0, x1, y1)))
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            x, y = centre_of_cell(row, column)
            if not (x0 < x < x1 and y0 < y < y1):
                assert not found[row, column].any()
                continue
            dx, dy = x - (x0 + x1) / 2, y - (y0 + y1) / 2
            expected = [waves(dx, dy), torch.ones(1), waves(dx / ((x1 - x0) / 2), dy / ((y1 - y0) / 2)), torch.ones(1)]
            torch.testing.assert_close(found[row, column], torch.cat(expected), atol=1e-5, rtol=0)


def test_the_nearer_instance_owns_the_overlap_and_without_an_order_the_smaller():
    large, small = Box(0, 0, 1, 1), Box(0.25, 0.25, 0.75, 0.75)
    alone = {name: frames(Instance(name, box=box)) for name, box in (("large", large), ("small", small))}
    for ranks, owner in (((1, 0), "large"), ((0, 1), "small"), ((None, None), "small")):
        both = frames(Instance("a", box=large, z_order=ranks[0]), Instance("b", box=small, z_order=ranks[1]))
        torch.testing.assert_close(both[4, 6], alone[owner][4, 6])
        torch.testing.assert_close(both[0, 0], alone["large"][0, 0])


def test_a_mask_owns_its_cells_and_not_its_box():
    ring = torch.zeros(64, 96, dtype=torch.bool)
    ring[8:56, 8:88] = True
    ring[16:48, 24:72] = False
    found = frames(Instance("ring", mask=Mask.from_array(ring.numpy())))
    assert not found[4, 6].any() and found[4, 1].any() and not found[0, 0].any()
    assert found[4, 1, -1] == 1  # a mask has an extent


def test_point_and_scribble_claim_what_is_near_and_what_nobody_covers():
    point, stroke = Instance("p", point=Point(0.5, 0.5)), Instance("s", scribble=Scribble(((0.05, 0.9), (0.3, 0.95))))
    box = Instance("b", box=Box(0.25, 0.25, 0.75, 0.75))
    near, far, rest = frames(point, stroke, box)[4, 6], frames(point, stroke, box)[2, 3], frames(point, stroke, box)
    torch.testing.assert_close(near, frames(point)[4, 6])
    torch.testing.assert_close(far, frames(box)[2, 3])
    torch.testing.assert_close(rest[0, 11], frames(point)[0, 11])
    torch.testing.assert_close(rest[7, 0], frames(stroke)[7, 0])
    assert (frames(point)[..., HALF - 1] == 1).all() and not frames(point)[..., HALF:].any()


@pytest.mark.parametrize("ranks", [(None, None, None), (0, 1, 2), (0, None, 0)])
def test_frames_do_not_depend_on_the_order_of_the_file(ranks):
    places = [{"box": Box(0, 0, 0.6, 0.6)}, {"box": Box(0.3, 0.3, 0.9, 0.9)}, {"point": Point(0.9, 0.1)}]
    instances = [
        Instance(str(i), z_order=rank, **place) for i, (rank, place) in enumerate(zip(ranks, places, strict=True))
    ]
    torch.testing.assert_close(frames(*instances), frames(*instances[::-1]))


def test_scenes_without_instances_and_unused_slots_have_empty_frames():
    scenes = [Scene("a picture", (), 64, 64), Scene("a picture", (Instance("a", point=Point(0.5, 0.5)),), 64, 64)]
    locations = locations_from_scenes(scenes, derive=False, segmentation_size=64, segmentation_channels=0)
    found = cell_frames(locations, SIZE)
    assert not found[0].any() and found[1].any()
    torch.testing.assert_close(cell_frames(locations.pad(5), SIZE), found)
    assert cell_frames(locations.select([0]), SIZE).shape == (1, SIZE[0] * SIZE[1], FRAME_FEATURES)
