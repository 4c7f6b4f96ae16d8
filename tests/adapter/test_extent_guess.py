import torch

from instancediffusion.adapter.extent_guess import ExtentGuess
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


def test_a_scene_may_have_no_instance():
    assert ExtentGuess(16)(LocationTensors.empty(2, 0), torch.zeros(2, 0, 16)).shape == (2, 0, 4)


def guessed(*instances, outline=None):
    """Extents by an untrained guess, fitted to one outline (S, S) for all."""
    torch.manual_seed(0)
    guess = ExtentGuess(16)
    words = torch.zeros(1, len(instances), 16)
    outlines = (torch.ones(24, 24) if outline is None else outline).expand(1, len(instances), -1, -1)
    with torch.no_grad():
        return guess(told(*instances), words, outlines)[0]


def on_outline(extent, outline, points):
    low, high = extent.unflatten(-1, (2, 2))
    places = ((torch.tensor(points) - low) / (high - low) * 24).long().clamp(0, 23)
    return [bool(outline[y, x] > 0.5) for x, y in places]


def test_points_and_strokes_lie_on_the_outline():
    """The point that told of a moon came to lie in its hollow, and a scooter's between its wheels."""
    hollow = torch.ones(24, 24)
    hollow[6:18, 6:18] = 0  # a frame, in the middle of which a guess would have the point
    for place in (Point(0.5, 0.5), Point(0.12, 0.85)):
        plain = guessed(Instance("a", point=place))[0]
        found = guessed(Instance("a", point=place), outline=hollow)[0]
        assert on_outline(found, hollow, [(place.x, place.y)]) == [True]
        assert not torch.equal(found, plain)
        assert (found >= 0).all() and (found <= 1).all()
    stroke = ((0.4, 0.4), (0.42, 0.5), (0.4, 0.6))
    found = guessed(Instance("a", scribble=Scribble(stroke)), outline=hollow)[0]
    assert all(on_outline(found, hollow, stroke))


def test_what_is_behind_is_left_to_be_seen():
    """A stroke is on what is to be seen; objects in front were guessed so large that they hid it altogether."""
    stroke = ((0.7, 0.5), (0.72, 0.5), (0.74, 0.52))
    whole = torch.ones(24, 24)

    def pair(front, back):
        return Instance("a", point=Point(0.5, 0.5), z_order=front), Instance(
            "b", scribble=Scribble(stroke), z_order=back
        )

    def holds(extent):
        return [bool((extent[:2] <= torch.tensor(p)).all() and (torch.tensor(p) <= extent[2:]).all()) for p in stroke]

    assert all(holds(guessed(*pair(0, 1), outline=whole)[0]))
    assert not any(holds(guessed(*pair(1, 0), outline=whole)[0]))
    # The farther one's own guess is the same whichever order is stated, and every told box stays.
    torch.testing.assert_close(guessed(*pair(1, 0))[1], guessed(*pair(0, 1))[1])
    box = Instance("a", box=Box(0.3, 0.3, 0.9, 0.9), z_order=1)
    torch.testing.assert_close(guessed(box, pair(1, 0)[1])[0], torch.tensor([0.3, 0.3, 0.9, 0.9]))


def test_a_guess_that_fits_stays():
    """Solid objects with nothing behind them: fitting leaves the most likely extent as it is."""
    torch.manual_seed(0)
    guess, words = ExtentGuess(16), torch.zeros(1, 2, 16)
    places = told(Instance("a", point=Point(0.5, 0.5), z_order=1), Instance("b", point=Point(0.55, 0.5)))
    with torch.no_grad():
        torch.testing.assert_close(guess(places, words, torch.ones(1, 2, 24, 24)), guess(places, words))
