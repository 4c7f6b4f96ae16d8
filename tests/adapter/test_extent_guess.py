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


def guessed(*instances):
    torch.manual_seed(0)
    guess = ExtentGuess(16)
    words = torch.randn(1, len(instances), 16)
    with torch.no_grad():
        return guess(told(*instances), words)[0]


def test_what_is_behind_is_left_to_be_seen():
    """A stroke is on what is to be seen; objects in front were guessed so large that they hid it altogether."""
    stroke = Scribble(((0.75, 0.5), (0.77, 0.5), (0.79, 0.52)))

    def pair(front, back):
        return (
            Instance("a", point=Point(0.5, 0.5), z_order=front),
            Instance("b", scribble=stroke, z_order=back),
        )

    behind, in_front = guessed(*pair(1, 0))[0], guessed(*pair(0, 1))[0]
    middle = torch.tensor([0.5, 0.5])

    def covers(extent):
        centre, radius = extent.unflatten(-1, (2, 2)).mean(0), (extent[2:] - extent[:2]) / 2
        return [bool(((torch.tensor(p) - centre) / radius).square().sum() <= 1) for p in stroke.points]

    assert all(covers(in_front)) and not any(covers(behind))
    assert (behind[:2] <= middle).all() and (middle <= behind[2:]).all()
    # The farther one's own guess is the same whichever order is stated, and so is every told box.
    torch.testing.assert_close(guessed(*pair(1, 0))[1], guessed(*pair(0, 1))[1])
    box = Instance("a", box=Box(0.3, 0.3, 0.9, 0.9), z_order=1)
    torch.testing.assert_close(guessed(box, pair(1, 0)[1])[0], torch.tensor([0.3, 0.3, 0.9, 0.9]))


def test_where_nothing_is_behind_a_guess_stays():
    places = (Instance("a", point=Point(0.5, 0.5), z_order=1), Instance("b", point=Point(0.55, 0.5)))
    alone = (Instance("a", point=Point(0.5, 0.5), z_order=1), Instance("b", point=Point(0.95, 0.95)))
    torch.testing.assert_close(guessed(*places)[0], guessed(*alone)[0])
