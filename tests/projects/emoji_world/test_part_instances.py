"""Parts as instances of their own: where they are, what is said of them, and where they stand in the depth order."""

import numpy as np
import pytest

from instancediffusion.errors import SettingsError
from instancediffusion.projects.emoji_world import export_coco
from instancediffusion.scene.english import part_word


@pytest.fixture(scope="module")
def parted(make_world):
    return make_world(part_share=0.6, max_objects=3, size=96)


@pytest.fixture(scope="module")
def drawn(parted):
    both = [parted.sample(seed, order) for seed in range(150) for order in (None, "reversed")]
    assert sum(bool(_parts(sample)) for sample in both) > 70
    return both


def _parts(sample):
    return [item for item in sample.instances if item.part_of is not None]


def test_a_part_lies_in_its_object(drawn):
    for sample in drawn:
        for part in _parts(sample):
            whole = sample.instances[part.part_of]
            (box,) = [box for name, box in whole.parts.items() if np.array_equal(box, part.box)]
            assert not (part.amodal & ~whole.amodal).any()
            assert np.array_equal(part.visible, part.amodal & whole.visible)
            ys, xs = np.nonzero(part.amodal)
            tight = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / 96
            assert (tight[:2] >= box[:2] - 0.51 / 96).all()
            assert (tight[2:] <= box[2:] + 1.01 / 96).all()
            # All of the object's pixels well within the box belong to the part.
            x0, y0, x1, y1 = np.round(box * 96).astype(int) + np.array([1, 1, -1, -1])
            assert np.array_equal(part.amodal[y0:y1, x0:x1], whole.amodal[y0:y1, x0:x1])
            assert part.visible.sum() >= 0.45 * part.amodal.sum()


def test_a_part_stands_right_in_front_of_its_object_in_every_order(drawn):
    for sample in drawn:
        ranks = [item.z_order for item in sample.instances]
        assert sorted(ranks) == list(range(len(ranks)))
        at = {item.z_order: index for index, item in enumerate(sample.instances)}
        for part in _parts(sample):
            below = at[part.z_order - 1]
            assert below == part.part_of or sample.instances[below].part_of == part.part_of


def test_reversing_turns_the_objects_round(drawn):
    for sample, turned in zip(drawn[::2], drawn[1::2], strict=True):
        objects = [item.z_order for item in sample.instances if item.part_of is None]
        again = [item.z_order for item in turned.instances if item.part_of is None]
        assert np.array_equal(np.argsort(objects), np.argsort(again)[::-1])
        assert [item.captions for item in _parts(sample)] == [item.captions for item in _parts(turned)]


def test_the_picture_and_the_objects_are_the_same_without_parts(make_world, drawn):
    bare = make_world(part_share=0.0, max_objects=3, size=96)
    for sample in drawn[:60:2]:
        without = bare.sample(sample.seed)
        objects = [item for item in sample.instances if item.part_of is None]
        assert np.array_equal(sample.image, without.image)
        assert (sample.prompts, [i.captions for i in objects]) == (
            without.prompts,
            [i.captions for i in without.instances],
        )
        assert all(np.array_equal(a.visible, b.visible) for a, b in zip(objects, without.instances, strict=True))


def test_captions_name_the_part_and_are_true(parted, drawn):
    kinds = {kind.name: kind for kind in parted.kinds}
    for sample in drawn:
        for part in _parts(sample):
            whole = sample.instances[part.part_of]
            kind, word = kinds[whole.name], part.name.removeprefix(f"{whole.name} ")
            assert part.caption == part.captions[0]
            assert all(word in caption for caption in part.captions)
            assert part.captions[1] in (word, f"a {word}", f"an {word}", f"the {word}")
            assert all(any(noun in caption for noun in kind.nouns) for caption in part.captions[2:])
            if word != "end":  # "the left end" of the arrow is a part's name
                said = {side for caption in part.captions for side in caption.split()} & {"left", "right"}
                assert said <= {whole.facing}
    assert part_word("left ear") == "ear"


def test_as_many_show_parts_as_the_share_says(make_world):
    world = make_world(objects=("arrow",), max_objects=1, part_share=0.3, min_scale=0.5)
    samples = [world.sample(seed) for seed in range(400)]
    assert abs(np.mean([bool(_parts(sample)) for sample in samples]) - 0.3) < 0.1
    assert max(len(_parts(sample)) for sample in samples) == world.spec.max_parts


def test_an_object_may_show_many_parts(make_world):
    """The study's first scene names a dog and six of its parts."""
    world = make_world(max_objects=1, part_share=1.0, min_scale=0.6, max_parts=5, further_part=1.0)
    counts = [len(_parts(world.sample(seed))) for seed in range(100)]
    assert 2 < max(counts) <= 5
    few = make_world(max_objects=1, part_share=1.0, min_scale=0.6, max_parts=1, further_part=1.0)
    assert max(len(_parts(few.sample(seed))) for seed in range(100)) == 1
    with pytest.raises(SettingsError, match="max_parts is 0"):
        make_world(max_parts=0)


def test_orders_that_part_an_object_from_its_part_are_refused(parted, drawn):
    sample = next(one for one in drawn if len(_parts(one)) == 1 and len(one.instances) == 3)
    ranks = [item.z_order for item in sample.instances]
    again = parted.sample(sample.seed, ranks)
    assert [item.z_order for item in again.instances] == ranks
    part, whole = 2, sample.instances[2].part_of
    swapped = list(ranks)
    swapped[part], swapped[whole] = ranks[whole], ranks[part]
    with pytest.raises(SettingsError, match="its object"):
        parted.sample(sample.seed, swapped)


def test_parts_are_exported(make_world, tmp_path):
    world = make_world(part_share=1.0)
    instances, _ = export_coco(world, tmp_path, 8)
    assert '"arrow tip"' in instances.read_text()
