import numpy as np
import torch

from instancediffusion.conditioning import locations_from_scenes
from instancediffusion.conditioning.regions import known_extents
from instancediffusion.conditioning.visibility import nearer
from instancediffusion.scene import Box, Instance, Mask, Point, Scene, Scribble


def locations(*instances):
    scene = Scene("a picture", instances, 96, 64)
    return locations_from_scenes([scene], derive=False, segmentation_size=64, segmentation_channels=0)


def test_the_extent_is_that_of_what_says_most():
    ring = np.zeros((64, 96), bool)
    ring[8:56, 12:84] = True
    ring[16:48, 24:72] = False
    stroke = Scribble(((0.1, 0.9), (0.3, 0.7)))
    found, known = known_extents(
        locations(
            Instance("all", box=Box(0.25, 0.5, 0.75, 1), mask=Mask.from_array(ring), scribble=stroke),
            Instance("ring", mask=Mask.from_array(ring), scribble=stroke),
            Instance("stroke", scribble=stroke, point=Point(0.5, 0.5)),
            Instance("point", point=Point(0.5, 0.25)),
        )
    )
    assert known.tolist() == [[True, True, False, False]]
    torch.testing.assert_close(found[0, 0], torch.tensor([0.25, 0.5, 0.75, 1]))
    torch.testing.assert_close(found[0, 1], torch.tensor([0.125, 0.125, 0.875, 0.875]), atol=0.03, rtol=0)
    torch.testing.assert_close(found[0, 2], torch.tensor([0.1, 0.7, 0.3, 0.9]), atol=0.03, rtol=0)
    torch.testing.assert_close(found[0, 3], torch.tensor([0.5, 0.25, 0.5, 0.25]), atol=0.02, rtol=0)


def test_of_two_instances_one_is_in_front_or_both_are_half():
    box = Box(0, 0, 1, 1)
    ranks = (3, 7, None, 3)
    told = locations(*(Instance(str(k), box=box, z_order=rank) for k, rank in enumerate(ranks)))
    front = nearer(told.pad(5))[0]
    expected = [[0, 1, 0.5, 0.5], [0, 0, 0.5, 0], [0.5, 0.5, 0, 0.5], [0.5, 1, 0.5, 0]]
    assert front[:4, :4].tolist() == expected
    assert not front[4].any() and not front[:, 4].any()
    pairs = front[:4, :4] + front[:4, :4].T
    assert torch.equal(pairs, 1 - torch.eye(4))
