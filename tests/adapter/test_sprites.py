import numpy as np
import torch

from instancediffusion.adapter.sprites import CHANNELS, Sprites
from instancediffusion.conditioning import locations_from_scenes
from instancediffusion.conditioning.extents import known_extents
from instancediffusion.scene import Box, Instance, Mask, Scene

SIZE = (32, 32)


def sprites(seed=0):
    torch.manual_seed(seed)
    return Sprites(16).eval()


def captions(count, seed=1):
    return torch.randn(1, count, 16, generator=torch.Generator().manual_seed(seed)) * 4


def paint(made, instances, features, size=SIZE):
    scene = Scene("a picture", tuple(instances), 64, 64)
    told = locations_from_scenes([scene], derive=False, segmentation_size=64, segmentation_channels=0)
    with torch.no_grad():
        raster, seen = made(told, features, known_extents(told)[0], size)
    return raster[0], seen[0]


def mask(rows, columns):
    bitmap = np.zeros((64, 64), bool)
    bitmap[rows, columns] = True
    return Mask.from_array(bitmap)


def test_nothing_is_painted_outside_of_the_instances():
    raster, seen = paint(sprites(), [Instance("a", box=Box(0.25, 0.5, 0.75, 1))], captions(1))
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[16:, 8:24] = True
    assert not raster[:, ~inside].any() and (seen[0][inside] > 0).all()
    assert torch.equal(raster[-1], seen.sum(0))


def test_what_is_in_front_hides_what_is_behind_it_and_swapping_the_order_swaps_the_two():
    places = [mask(slice(0, 40), slice(0, 40)), mask(slice(24, 64), slice(24, 64))]
    made, features = sprites(), captions(2)

    def seen(*ranks):
        instances = [Instance(str(k), mask=m, z_order=r) for k, (m, r) in enumerate(zip(places, ranks, strict=True))]
        return paint(made, instances, features)[1]

    overlap = (slice(None), slice(12, 20), slice(12, 20))
    assert (seen(0, 1)[overlap][1] > 0.99).all() and (seen(0, 1)[overlap][0] < 0.01).all()
    assert (seen(1, 0)[overlap][0] > 0.99).all() and (seen(1, 0)[overlap][1] < 0.01).all()
    unordered = seen(None, None)[overlap]
    torch.testing.assert_close(unordered, torch.full_like(unordered, 0.5), atol=1e-3, rtol=0)
    assert torch.equal(seen(0, 1)[0, :12], seen(1, 0)[0, :12])


def test_a_hole_in_the_front_one_shows_what_is_behind():
    hole = np.ones((64, 64), bool)
    hole[20:44, 20:44] = False
    instances = [
        Instance("front", mask=Mask.from_array(hole), z_order=2),
        Instance("back", box=Box(0, 0, 1, 1), z_order=1),
    ]
    made, features = sprites(), captions(2)
    raster, _ = paint(made, instances, features)
    alone, _ = paint(made, instances[1:], features[:, 1:])
    torch.testing.assert_close(raster[:, 11:21, 11:21], alone[:, 11:21, 11:21], atol=1e-3, rtol=1e-3)


def test_shares_are_shares_whoever_is_listed_first():
    boxes = [Box(0, 0, 0.6, 0.6), Box(0.3, 0.3, 0.9, 0.9), Box(0.1, 0.4, 0.8, 1)]
    instances = [
        Instance(str(k), box=box, z_order=rank) for k, (box, rank) in enumerate(zip(boxes, (0, None, 2), strict=True))
    ]
    made, features = sprites(), captions(3)
    raster, seen = paint(made, instances, features)
    assert (seen >= 0).all() and (seen.sum(0) <= 1 + 1e-5).all()
    again, turned = paint(made, instances[::-1], features.flip(1))
    torch.testing.assert_close(again, raster, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turned.flip(0), seen, atol=1e-5, rtol=1e-5)


def test_a_caption_that_turns_its_object_mirrors_the_sprite():
    made, features, box = sprites(), captions(1), [Instance("a", box=Box(0.25, 0.25, 0.75, 0.75))]
    with torch.no_grad():
        made.turn.weight.zero_()
        made.turn.bias.fill_(20.0)
        one = paint(made, box, features)[0]
        made.turn.bias.fill_(-20.0)
        other = paint(made, box, features)[0]
        made.turn.bias.zero_()
        neither = paint(made, box, features)[1]
    shown = [*range(CHANNELS), 2 * CHANNELS]
    # Cover is a curved function of the texels, so content is compared after it is divided out.
    torch.testing.assert_close(other[-1].flip(-1), one[-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other[shown].flip(-1), one[shown], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(neither.flip(-1), neither, atol=1e-5, rtol=1e-5)


def test_a_coarse_raster_is_the_fine_one_made_smaller():
    box = [Instance("a", box=Box(0, 0, 1, 1))]
    made = sprites()
    with torch.no_grad():  # a smooth sprite: rough ones differ by what is between the positions
        ramp = torch.linspace(-1, 1, 24)
        made.texels.weight.zero_()
        made.texels.bias.copy_((ramp[:, None] + 2 * ramp[None]).expand(CHANNELS + 1, -1, -1).flatten())
    fine, coarse = (paint(made, box, captions(1), (side, side))[0] for side in (64, 16))
    pooled = torch.nn.functional.avg_pool2d(fine, 4)
    torch.testing.assert_close(pooled[:, 2:-2, 2:-2], coarse[:, 2:-2, 2:-2], atol=0.03, rtol=0)


def test_unused_slots_change_nothing():
    scene = Scene("a picture", (Instance("a", box=Box(0.2, 0.2, 0.9, 0.7)),), 64, 64)
    told = locations_from_scenes([scene], derive=False, segmentation_size=64, segmentation_channels=0)
    made, features = sprites(), captions(3)
    with torch.no_grad():
        alone = made(told, features[:, :1], known_extents(told)[0], SIZE)[0]
        padded = made(told.pad(3), features, known_extents(told.pad(3))[0], SIZE)[0]
    torch.testing.assert_close(padded, alone)


def test_captions_that_tell_a_side_turn_their_sprites_from_the_start():
    """Sprites that begin with one side for all captions learned a donkey's two sides laid over one another."""
    made, generator = sprites(), torch.Generator().manual_seed(4)
    kinds, side = torch.randn(20, 1, 16, generator=generator), torch.randn(16, generator=generator)
    left, right = (kinds + side * sign + 0.1 * torch.randn(20, 1, 16, generator=generator) for sign in (3.0, -3.0))
    made.face(left[:10, 0], right[:10, 0])
    turns = [made.turn(features[10:] * made.scale).tanh() for features in (left, right, kinds)]
    assert (turns[0] > 0.3).all() and (turns[1] < -0.3).all() and abs(float(turns[2].mean())) < 0.3
