"""The truth of a sample against the picture and against itself."""

import numpy as np
import pytest

from instancediffusion.errors import SettingsError


def same(a, b) -> bool:
    return all(
        [np.array_equal(a.image, b.image), a.prompt == b.prompt, a.background == b.background]
        + [
            (i.caption, i.name, i.colour, i.facing, i.z_order) == (j.caption, j.name, j.colour, j.facing, j.z_order)
            and all(np.array_equal(getattr(i, name), getattr(j, name)) for name in ("box", "amodal", "visible"))
            and i.parts.keys() == j.parts.keys()
            and all(np.array_equal(i.parts[name], j.parts[name]) for name in i.parts)
            for i, j in zip(a.instances, b.instances, strict=True)
        ]
    )


def test_a_seed_alone_decides(make_world):
    one, other = make_world(), make_world()
    for seed in (5, 3, 2**40, 4):  # another order of calls, a fresh object with nothing cached
        other.sample(seed)
    assert all(same(one.sample(seed), other.sample(seed)) for seed in (3, 4, 5, 2**40))
    assert len({one.sample(seed).image.tobytes() for seed in range(30)}) == 30


def test_visible_is_amodal_minus_the_nearer_ones(samples):
    for sample in samples:
        for item in sample.instances:
            nearer = [other.amodal for other in sample.instances if other.z_order > item.z_order]
            assert np.array_equal(item.visible, item.amodal & ~np.any([np.zeros_like(item.amodal), *nearer], axis=0))
        assert sorted(item.z_order for item in sample.instances) == list(range(len(sample.instances)))


def test_boxes_are_tight_around_the_whole_silhouette(samples):
    for sample in samples[:100]:
        for item in sample.instances:
            ys, xs = np.nonzero(item.amodal)
            expected = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / 64
            assert item.box == pytest.approx(expected)


def test_objects_stay_on_the_canvas_within_their_scales(samples):
    for sample in samples:
        for item in sample.instances:
            longer = max(item.box[2] - item.box[0], item.box[3] - item.box[1])
            assert longer <= 0.75 + 1.5 / 64
            assert item.amodal.any()


@pytest.mark.parametrize(("aspect", "canvas"), [(1.5, (56, 80)), (2 / 3, (80, 56)), (3.0, (40, 112))])
def test_on_another_canvas_objects_keep_their_shape_and_their_share_of_its_area(make_world, aspect, canvas):
    """All that was true of squares is true of it; a sprite covers as many pixels of it as of the square."""
    # Small enough that nothing has to be made smaller for want of room.
    options = {"size": 64, "min_objects": 1, "max_objects": 1, "min_scale": 0.3, "max_scale": 0.5, "part_share": 0.0}
    square, other = make_world(**options), make_world(**options, aspect=aspect)
    assert other.spec.canvas == canvas
    for seed in range(40):
        sample, same = other.sample(seed), square.sample(seed)
        assert sample.image.shape == (*canvas, 3)
        scene = sample.to_scene()
        assert (scene.width, scene.height) == canvas[::-1]
        for item, before in zip(sample.instances, same.instances, strict=True):
            assert item.name == before.name and item.amodal.shape == canvas
            ys, xs = np.nonzero(item.amodal)
            tight = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert item.box * np.array(canvas[::-1] * 2) == pytest.approx(tight)
            assert item.amodal.sum() == before.amodal.sum()


def test_objects_fit_on_narrow_canvases(make_world):
    world = make_world(size=64, aspect=4.0, max_objects=3, min_scale=0.2, max_scale=0.95)
    for seed in range(20):
        for item in world.sample(seed).instances:
            assert item.amodal.any() and item.box.min() >= 0 and item.box.max() <= 1


@pytest.mark.parametrize("aspect", [0.2, 5.0, float("nan")])
def test_shapes_that_no_canvas_has_are_refused(make_world, aspect):
    with pytest.raises(SettingsError, match=r"aspect is .*; give 0\.25 to 4"):
        make_world(aspect=aspect)


def test_half_of_the_samples_overlap_and_nobody_is_buried_in_either_order(samples):
    overlapping = 0
    for sample in samples:
        depth = np.sum([item.amodal for item in sample.instances], axis=0)
        overlapping += bool((depth > 1).any())
        for item in sample.instances:
            assert (depth[item.amodal] == 1).mean() >= 0.45
    assert 0.4 < overlapping / len(samples) < 0.62


def test_depth_order_tells_nothing_of_index_size_or_height(make_world):
    world = make_world(min_objects=2, max_objects=2, size=32)
    firsts, larger, lower = [], [], []
    for seed in range(600):
        a, b = world.sample(seed).instances
        front = a.z_order > b.z_order
        firsts.append(front)
        larger.append(front == (a.amodal.sum() > b.amodal.sum()))
        lower.append(front == (a.box[3] > b.box[3]))
    for share in map(np.mean, (firsts, larger, lower)):
        assert abs(share - 0.5) < 0.08  # 4 standard deviations


def test_swapping_the_order_changes_only_where_objects_overlap(world, samples):
    changed_somewhere = 0
    for sample in samples[:150]:
        swapped = world.sample(sample.seed, order="reversed")
        count = len(sample.instances)
        assert [i.z_order for i in swapped.instances] == [count - 1 - i.z_order for i in sample.instances]
        for a, b in zip(sample.instances, swapped.instances, strict=True):
            assert (a.caption, a.name, a.colour, a.facing) == (b.caption, b.name, b.colour, b.facing)
            assert np.array_equal(a.amodal, b.amodal)
            assert np.array_equal(a.box, b.box)
            assert all(np.array_equal(a.parts[name], b.parts[name]) for name in a.parts)
        changed = (sample.image != swapped.image).any(-1)
        near = np.sum([_grown(_grown(item.amodal)) for item in sample.instances], axis=0) > 1
        assert not (changed & ~near).any()
        changed_somewhere += changed.any()
        assert same(sample, world.sample(sample.seed, order=[i.z_order for i in sample.instances]))
    assert changed_somewhere > 40


def test_the_nearest_object_shows_its_own_pixels(make_world):
    """The picture against an independent look: the nearest object's inside is one drawing's colours, untouched."""
    world = make_world(objects=("box", "arrow"), min_objects=2, max_objects=2)
    for seed in range(60):
        sample = world.sample(seed)
        top = max(sample.instances, key=lambda item: item.z_order)
        inside = ~_grown(~top.amodal)
        base = np.array({"box": (120, 120, 130), "arrow": (40, 160, 60)}[top.name])
        pixels = sample.image[inside].astype(float)
        assert ((np.abs(pixels - base).max(1) < 3) | (np.abs(pixels - base * 0.75).max(1) < 3)).mean() > 0.8


def test_facing_is_what_the_picture_shows(make_world):
    world = make_world(objects=("arrow",), max_objects=1, min_scale=0.5)
    seen = set()
    for seed in range(30):
        (item,) = world.sample(seed).instances
        columns = np.flatnonzero(item.amodal.any(0))
        tall = item.amodal.sum(0)
        thin_end = "left" if tall[columns[1]] < tall[columns[-2]] else "right"
        assert item.facing == thin_end  # the drawing's point, on the left in the art
        seen.add(item.facing)
    assert seen == {"left", "right"}


def test_scenes_state_the_truth(samples):
    for sample in samples[:40]:
        scene = sample.to_scene(("box", "point", "scribble", "mask"))
        assert (scene.prompt, scene.width, scene.height) == (sample.prompt, 64, 64)
        for stated, item in zip(scene.instances, sample.instances, strict=True):
            assert (stated.caption, stated.z_order) == (item.caption, item.z_order)
            assert (stated.box.x0, stated.box.y0, stated.box.x1, stated.box.y1) == tuple(item.box)
            assert np.array_equal(stated.mask.array, item.amodal)
            inside = [(stated.point.x, stated.point.y), *stated.scribble.points]
            assert all(item.visible[int(y * 64), int(x * 64)] for x, y in inside)
        bare = sample.to_scene(("point",), order=False)
        assert all(item.kinds == ("point",) and item.z_order is None for item in bare.instances)
        assert sample.to_scene(("scribble",)) == sample.to_scene(("scribble",))
    for kinds in ((), ("box", "polygon")):
        with pytest.raises(SettingsError, match="kinds"):
            samples[0].to_scene(kinds)


def test_wrong_settings_are_told(make_world, world):
    for spec in ({"size": 8}, {"min_objects": 0}, {"min_scale": 0.9}, {"overlap_share": 2}, {"objects": ("dodo",)}):
        with pytest.raises(SettingsError, match=next(iter(spec)).partition("_")[0]):
            make_world(**spec)
    with pytest.raises(SettingsError, match="seed"):
        world.sample(-1)
    for order in ([0, 0], [1], "up"):
        with pytest.raises(SettingsError, match="order"):
            world.sample(3, order=order)


def test_many_large_objects_still_find_room(make_world):
    world = make_world(min_objects=8, max_objects=8, min_scale=0.3, max_scale=0.9)
    for seed in range(20):
        assert len(world.sample(seed).instances) == 8


def test_all_counts_and_sizes_are_reached_and_half_of_the_pictures_overlap(make_world):
    world = make_world(size=128, max_objects=8, min_scale=0.1, max_scale=0.9)
    drawn = [world.sample(seed) for seed in range(250)]
    longest = [max(i.box[2] - i.box[0], i.box[3] - i.box[1]) for sample in drawn for i in sample.instances]
    assert {len(sample.instances) for sample in drawn} == set(range(1, 9))
    assert min(longest) < 0.12
    assert max(longest) > 0.8
    depths = [np.sum([item.amodal for item in sample.instances], axis=0).max() for sample in drawn]
    assert 0.4 < np.mean(np.array(depths) > 1) < 0.62


def test_parts_lie_in_the_box_and_are_where_the_picture_has_them(make_world):
    """The arrow's tip is at its thin end: the part moves there when the drawing is mirrored."""
    world = make_world(objects=("arrow",), max_objects=1, min_scale=0.5)
    for seed in range(30):
        (item,) = world.sample(seed).instances
        x0, y0, x1, y1 = item.box
        assert set(item.parts) == {"tip", "left end", "right end"}
        for part in item.parts.values():
            assert (part[:2] >= item.box[:2]).all()
            assert (part[2:] <= item.box[2:]).all()
            assert (part[:2] < part[2:]).all()
        tip = item.parts["tip"]
        columns = item.amodal.sum(0)
        inside = columns[round(tip[0] * 64) : round(tip[2] * 64)].mean()
        assert inside < 0.5 * columns.max()
        # In a mirrored drawing the end on the left is the one that was on the right.
        assert (item.parts["left end"][[0, 2]].mean() < (x0 + x1) / 2) and item.parts["right end"][2] > 0.95 * x1
        wide = item.parts["right end" if item.facing == "left" else "left end"]
        assert wide[3] - wide[1] == pytest.approx(y1 - y0, abs=2 / 64)


def _grown(mask: np.ndarray) -> np.ndarray:
    """Grow a silhouette by one pixel: soft edges reach that far."""
    padded = np.pad(mask, 1)
    return np.any(
        [
            padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ],
        axis=0,
    )
