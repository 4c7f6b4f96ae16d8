from collections import Counter

import numpy as np
import pytest
import torch

from instancediffusion.conditioning import KINDS, LocationTensors, instance_regions
from instancediffusion.data import (
    SUBSETS,
    InstanceRecord,
    LocationDropout,
    SceneCache,
    SceneRecord,
    collate,
    dense_ranks,
    drop_locations,
    write_latents,
    write_shard,
)
from instancediffusion.errors import SettingsError


def make_record(rng, instances):
    made = []
    for z in rng.permutation(instances):
        region = rng.random((16, 16)) < 0.4
        numbers = (rng.random(size).astype(np.float32) for size in ((4,), (2,), (20, 2), (256, 2)))
        made.append(InstanceRecord((f"thing {z}", f"a thing {z}"), *numbers, region, int(z)))
    return SceneRecord(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8), ("a prompt",), tuple(made))


@pytest.fixture
def records():
    rng = np.random.default_rng(0)
    return [make_record(rng, n) for n in (1, 3, 2, 4, 1, 2)]


@pytest.fixture
def folder(records, tmp_path):
    for number in range(2):
        path = write_shard(tmp_path, number, records[3 * number : 3 * number + 3], 5)
        write_latents(path, np.full((3, 4, 8, 8), number))
    return tmp_path


def full(batch, slots, seed=0):
    generator = torch.Generator().manual_seed(seed)
    count = torch.randint(1, slots + 1, (batch, 1), generator=generator)
    used = torch.arange(slots) < count
    empty = LocationTensors.empty(batch, slots)
    order = torch.rand(batch, slots, generator=generator).argsort(1).float()
    values = {**vars(empty), "used": used, "z_known": used.clone(), "z_order": order}
    return LocationTensors(**{**values, "present": {kind: used.clone() for kind in KINDS}})


def test_batches_hold_what_was_written(folder, records):
    cache = SceneCache(folder, need_latents=True)
    assert len(cache) == 6 and cache.image_px == 32
    batch = collate(cache, [4, 1, 3], torch.Generator().manual_seed(0))
    assert cache.rows("latents", [4, 1, 3])[:, 0, 0, 0].tolist() == [1, 0, 1] and batch.locations.slots == 4
    for row, number in enumerate([4, 1, 3]):
        for slot, instance in enumerate(records[number].instances):
            np.testing.assert_allclose(batch.locations.boxes[row, slot], instance.box, atol=5e-4)
            np.testing.assert_allclose(batch.locations.mask_points[row, slot], instance.mask_points, atol=5e-4)
            np.testing.assert_array_equal(batch.locations.segmentations[row, slot], instance.region)
            assert batch.locations.z_order[row, slot] == instance.z_order
            assert batch.captions[row][slot] in instance.captions
        assert batch.locations.used[row].sum() == len(records[number].instances)
    regions, known = instance_regions(batch.locations, (8, 8))
    assert known[batch.locations.used].all() and regions.shape == (3, 4, 8, 8)


def test_shards_may_be_added_while_reading(folder, records):
    cache = SceneCache(folder, need_latents=True)
    path = write_shard(folder, 2, records[:2], 5)
    cache.refresh()
    assert len(cache) == 6, "not encoded yet"
    write_latents(path, np.zeros((2, 4, 8, 8)))
    cache.refresh()
    assert len(cache) == 8
    np.testing.assert_array_equal(cache.image(7), records[1].image)


def test_half_written_shards_are_not_seen(folder):
    (folder / ".00002-99").mkdir()
    assert len(SceneCache(folder)) == 6


def test_too_many_instances_and_empty_folders_are_refused(records, tmp_path):
    with pytest.raises(ValueError, match="max_instances = 2"):
        write_shard(tmp_path, 0, records, 2)
    with pytest.raises(SettingsError, match="scenes stage"):
        SceneCache(tmp_path / "none")


def test_every_subset_occurs_with_its_probability():
    dropout = LocationDropout(uniform_scene=0.0, subset=0.0)
    told = drop_locations(full(6000, 4), dropout, torch.Generator().manual_seed(1))
    flags = torch.stack([told.present[kind] for kind in KINDS], -1)[told.used].tolist()
    found = Counter(tuple(k for k, on in zip(KINDS, row, strict=True) if on) for row in flags)
    assert set(found) == set(SUBSETS)
    for subset, weight in zip(SUBSETS, dropout.weights().tolist(), strict=True):
        assert abs(found[subset] / len(flags) - weight) < 4 * (weight / len(flags)) ** 0.5 + 1e-3


def test_used_instances_keep_a_kind_and_scenes_an_instance():
    given = full(500, 5)
    told = drop_locations(given, LocationDropout(subset=0.5), torch.Generator().manual_seed(2))
    some = torch.stack(list(told.present.values())).any(0)
    assert torch.equal(some, told.used) and told.used.any(1).all() and not (told.used & ~given.used).any()
    assert 0.2 < (told.used.sum(1) < given.used.sum(1)).float().mean() < 0.5


def test_unstated_orders_occur_and_stated_ones_are_dense():
    given = full(4000, 5)
    told = drop_locations(given, LocationDropout(subset=0.0), torch.Generator().manual_seed(3))
    none = (~told.z_known).all(1).float().mean()
    assert 0.13 < none < 0.2
    for row in range(300):
        known = told.z_known[row]
        ranks = told.z_order[row][known]
        assert sorted(ranks.tolist()) == list(range(int(known.sum())))
        assert torch.equal(ranks.argsort(), given.z_order[row][known].argsort())
        assert not told.z_order[row][~known].any()


def test_equal_orders_share_a_rank():
    order = torch.tensor([[5.0, 2.0, 5.0, 9.0, 1.0]])
    known = torch.tensor([[True, True, True, True, False]])
    assert dense_ranks(order, known).tolist() == [[1, 0, 1, 2, 0]]


def test_same_generator_same_draw():
    draws = [drop_locations(full(50, 4), LocationDropout(), torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(draws[0].used, draws[1].used)
    assert all(torch.equal(draws[0].present[kind], draws[1].present[kind]) for kind in KINDS)
