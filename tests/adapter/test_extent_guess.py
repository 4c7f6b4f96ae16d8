import math

import pytest
import torch

from instancediffusion.adapter.extent_guess import FLOOR, ExtentGuess
from instancediffusion.conditioning import LocationTensors, locations_from_scenes
from instancediffusion.scene import Box, Instance, Point, Scene, Scribble


def told(*instances):
    scene = Scene("a picture", instances, 64, 64)
    return locations_from_scenes([scene], derive=False, segmentation_size=64, segmentation_channels=0)


def test_told_extents_are_kept_and_guesses_hold_the_stroke_and_stay_on_the_canvas():
    stroke = Scribble(((0.02, 0.1), (0.9, 0.95)))
    places = told(
        Instance("b", box=Box(0.1, 0.2, 0.4, 0.5)),
        Instance("s", scribble=stroke),
        Instance("p", point=Point(0.99, 0.5)),
    )
    for seed in range(20):
        torch.manual_seed(seed)
        guess = ExtentGuess(16)
        with torch.no_grad():
            found = guess(places, torch.randn(1, 3, 16) * 10)[0]
        torch.testing.assert_close(found[0], torch.tensor([0.1, 0.2, 0.4, 0.5]))
        assert (found >= 0).all() and (found <= 1).all() and (found[:, 2:] > found[:, :2]).all()
        assert (found[1] <= torch.tensor([0.021, 0.101, 1, 1])).all() and (
            found[1, 2:] >= torch.tensor([0.899, 0.949])
        ).all()
        assert found[2, 0] <= 0.99 <= found[2, 2] and found[2, 1] <= 0.5 <= found[2, 3]


def test_it_learns_how_large_things_are():
    """Ants and houses, told by points: their captions say how far they reach."""
    torch.manual_seed(0)
    guess = ExtentGuess(16)
    words = torch.randn(2, 16) * 4
    optimiser = torch.optim.Adam(guess.parameters(), 3e-3)
    sides = torch.tensor([0.1, 0.5])
    for _ in range(400):
        which, centre = torch.randint(2, (12,)), torch.rand(12, 2) * 0.4 + 0.3
        places = told(*(Instance("x", point=Point(float(x), float(y))) for x, y in centre))
        half = sides[which][:, None] / 2
        loss = guess.loss(places, words[which][None], torch.cat([centre - half, centre + half], -1)[None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    places = told(Instance("ant", point=Point(0.5, 0.5)), Instance("house", point=Point(0.5, 0.5)))
    with torch.no_grad():
        found = guess(places, words[None])[0]
    torch.testing.assert_close(found[:, 2:] - found[:, :2], sides[:, None].expand(2, 2), atol=0.05, rtol=0.15)
    assert guess.loss(told(Instance("b", box=Box(0, 0, 1, 1))), words[None, :1], torch.zeros(1, 1, 4)) == 0


def test_a_stated_order_makes_room_for_an_overlap():
    torch.manual_seed(0)
    guess, words = ExtentGuess(16), torch.randn(1, 2, 16)
    with torch.no_grad():
        plain = guess(told(Instance("a", point=Point(0.4, 0.5)), Instance("b", point=Point(0.6, 0.5))), words)[0]
        stated = guess(
            told(Instance("a", point=Point(0.4, 0.5), z_order=1), Instance("b", point=Point(0.6, 0.5))), words
        )[0]
    assert (stated[0, :2] < plain[0, :2]).all() and (stated[0, 2:] > plain[0, 2:]).all()
    assert torch.equal(stated[1], plain[1])  # nothing was stated of this one


def always(side: float, spread: float) -> ExtentGuess:
    """Guesses the same of everything: squares round the point."""
    guess = ExtentGuess(16)
    with torch.no_grad():
        guess.mlp[2].weight.zero_()
        guess.mlp[2].bias[:] = torch.tensor([math.log(side) + 1] * 2 + [0.0] * 2 + [math.log(2 * (spread - FLOOR))] * 4)
    return guess


def sides_at(*places: tuple[float, float | None, int | None], side: float = 0.2, spread: float = 0.3) -> list[float]:
    """Guessed widths of instances (x, width of a told box, z_order), all at one height."""
    instances = [
        Instance("a", point=Point(x, 0.5), z_order=z)
        if width is None
        else Instance("b", box=Box(x - width / 2, 0.4, x + width / 2, 0.6), z_order=z)
        for x, width, z in places
    ]
    with torch.no_grad():
        found = always(side, spread)(told(*instances), torch.randn(1, len(places), 16))[0]
    return (found[:, 2] - found[:, 0]).tolist()


def test_two_points_of_stated_order_grow_until_they_meet():
    """Two points with an order were drawn side by side in two of five pictures, where neither was in front."""
    widths = {distance: sides_at((0.4, None, 1), (0.4 + distance, None, 2)) for distance in (0.1, 0.2, 0.23, 0.45)}
    assert widths[0.1] == pytest.approx([0.2 * math.exp(0.15)] * 2)  # as they are they meet
    assert widths[0.2] == pytest.approx([0.2 * math.exp(0.3 * 1.0)] * 2)  # .27 wide: they share .07, a quarter
    assert widths[0.23] == pytest.approx([0.2 * math.exp(0.3 * 1.5)] * 2)
    assert widths[0.45] == pytest.approx([0.2 * math.exp(0.15)] * 2)  # out of reach: not pulled out of shape


def test_without_two_different_ranks_nothing_is_to_meet():
    assert sides_at((0.4, None, 1), (0.6, None, 1)) == pytest.approx([0.2 * math.exp(0.15)] * 2)
    assert sides_at((0.4, None, None), (0.6, None, None)) == pytest.approx([0.2] * 2)
    assert sides_at((0.4, None, 1), (0.6, None, None)) == pytest.approx([0.2 * math.exp(0.15), 0.2])


def test_a_point_grows_towards_a_told_box_which_stays():
    assert sides_at((0.4, None, 1), (0.6, 0.25, 2)) == pytest.approx([0.2 * math.exp(0.3 * 1.25), 0.25])


def test_a_scene_may_have_one_instance_or_none():
    assert sides_at((0.4, None, 3)) == pytest.approx([0.2 * math.exp(0.15)])
    assert always(0.2, 0.3)(LocationTensors.empty(2, 0), torch.zeros(2, 0, 16)).shape == (2, 0, 4)


def test_the_nearest_is_met_and_not_everybody():
    small = 0.2 * math.exp(0.15)
    # Neighbours meet as they are; the outer two, .2 apart, would have to grow, and need not.
    assert sides_at((0.3, None, 1), (0.4, None, 2), (0.5, None, 3)) == pytest.approx([small] * 3)
    # The one on the right has nobody else, so the one in the middle, though it has met, grows towards it.
    large = 0.2 * math.exp(0.3 * 1.5)
    assert sides_at((0.35, None, 1), (0.5, None, 2), (0.73, None, 3)) == pytest.approx([small, large, large])


def test_padding_and_other_scenes_change_nothing():
    instances = (Instance("a", point=Point(0.4, 0.5), z_order=1), Instance("b", point=Point(0.6, 0.5), z_order=2))
    pair, one = Scene("x", instances, 64, 64), Scene("x", instances[:1], 64, 64)
    places = locations_from_scenes([pair, one], derive=False, segmentation_size=64, segmentation_channels=0)
    with torch.no_grad():
        found = always(0.2, 0.3)(places, torch.randn(2, 2, 16))
    widths = found[..., 2] - found[..., 0]
    torch.testing.assert_close(widths[0], torch.full((2,), 0.2 * math.exp(0.3)))
    assert widths[1, 0] == pytest.approx(0.2 * math.exp(0.15))
