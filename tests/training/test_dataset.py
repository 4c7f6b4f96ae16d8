"""Training on labelled pictures: what becomes of them, and of those that are broken."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from instancediffusion.conditioning import KINDS
from instancediffusion.data import LocationDropout, SceneCache, collate, drop_locations
from instancediffusion.datasets import Example, write_dataset
from instancediffusion.errors import SceneError, SettingsError
from instancediffusion.projects.emoji_world import export_coco
from instancediffusion.scene import Box, Instance, Mask, Point, Scene, Scribble
from instancediffusion.training import stages
from instancediffusion.training.checkpoint import load_checkpoint
from instancediffusion.training.config import DatasetConfig
from instancediffusion.training.dataset_scenes import read_scenes, record

from .conftest import home_made_world

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def painted(width, height, *places, **kinds):
    """A picture with a coloured block at each place (x0, y0, x1, y1) in pixels, and its scene."""
    image, instances = np.zeros((height, width, 3), np.uint8), []
    for (x0, y0, x1, y1), colour in zip(places, COLOURS, strict=False):
        image[y0:y1, x0:x1] = colour
    for number, ((x0, y0, x1, y1), colour) in enumerate(zip(places, COLOURS, strict=False)):
        box = Box(x0 / width, y0 / height, x1 / width, y1 / height)
        given = {
            "box": box,
            "mask": Mask.from_array((image == colour).all(-1)),
            "point": Point(*box.centre),
            "scribble": Scribble(((box.x0 + 1 / width, box.centre[1]), (box.centre[0], box.y1 - 1 / height))),
        }
        chosen = {kind: given[kind] for kind in kinds.get("kinds", ("box", "mask"))}
        instances.append(Instance(f"block {number}", **chosen, z_order=kinds.get("order", {}).get(number)))
    return Example(Scene("blocks", tuple(instances), width, height), image, "blocks.png")


@pytest.mark.parametrize("shape", [(120, 80), (80, 120), (64, 64), (500, 90)])
@pytest.mark.parametrize("sizes", [((64, 64),), ((96, 64), (64, 96))])
@pytest.mark.parametrize("kinds", [("mask",), KINDS])
def test_locations_move_with_the_picture(shape, sizes, kinds):
    width, height = shape
    middle = (width // 2 - 20, height // 2 - 16, width // 2 + 4, height // 2 + 20)
    right = (width // 2 + 4, height // 2 - 30, width // 2 + 24, height // 2 + 10)
    config = DatasetConfig(sizes=sizes, region_px=32)
    made = record(painted(width, height, middle, right, kinds=kinds), config)
    size = made.image.shape[1], made.image.shape[0]
    assert size == min(sizes, key=lambda s: abs(np.log(s[0] / s[1]) - np.log(width / height)))
    assert len(made.instances) == 2
    for instance, colour in zip(made.instances, COLOURS, strict=False):
        seen = np.abs(made.image.astype(int) - colour).max(-1) < 100
        ys, xs = np.nonzero(seen)
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        np.testing.assert_allclose(instance.box * (*size, *size), found, atol=1.6)
        for points in (instance.point[None], instance.scribble):
            x, y = np.clip((points * size).astype(int), 0, np.array(size) - 1).T
            assert (np.abs(made.image[y, x].astype(int) - colour).max(-1) < 200).all()
        inside = (instance.mask_points * size >= found[:2] - 2) & (instance.mask_points * size <= found[2:] + 2)
        assert inside.all()
        rows = (np.arange(size[1]) * 32) // size[1]
        columns = (np.arange(size[0]) * 32) // size[0]
        assert (instance.region[rows[:, None], columns] != seen).mean() < 0.06


def test_what_the_cut_takes_away_is_dropped():
    # The square in the middle of 200 x 100 pixels is 50..150.
    made = record(painted(200, 100, (0, 0, 40, 40), (40, 20, 100, 80), (146, 0, 190, 100)), DatasetConfig())
    (kept,) = made.instances  # of the third, 4 of 44 pixels are left: too little
    np.testing.assert_allclose(kept.box, [0, 0.2, 0.5, 0.8], atol=1e-6)
    with pytest.raises(SceneError, match=r"blocks\.png: .*no instance is left"):
        record(painted(200, 100, (0, 0, 40, 40)), DatasetConfig())
    with pytest.raises(SceneError, match=r"60 x 40 pixels, its annotations are for 40 x 60"):
        record(replace(painted(40, 60, (0, 0, 40, 60)), image=np.zeros((40, 60, 3), np.uint8)), DatasetConfig())


def test_only_what_is_known_is_told(tmp_path):
    """Boxes alone, points alone, some orders: nothing is made up, and every drawn instance keeps a kind it has."""
    block = (10, 10, 50, 50)
    examples = [
        painted(64, 64, block, (20, 20, 60, 60), kinds=["box"]),
        painted(64, 64, block, kinds=["point"]),
        painted(64, 64, block, kinds=["scribble"], order={0: 7}),
        painted(64, 64, block, (0, 0, 9, 9), (30, 30, 64, 64), kinds=["box", "mask"], order={0: 5, 2: 3}),
    ]
    write_dataset(Listed(examples), tmp_path / "set", "webdataset")
    read_scenes(DatasetConfig(str(tmp_path / "set"), sizes=((64, 64),), region_px=32), tmp_path / "scenes")
    cache = SceneCache(tmp_path / "scenes")
    full = collate(cache, range(4), torch.Generator()).locations
    has = {row: {kind for kind in KINDS if full.present[kind][row, 0]} for row in range(4)}
    assert has == {0: {"box"}, 1: {"point"}, 2: {"scribble"}, 3: set(KINDS)}
    assert full.z_known.tolist() == [[False] * 3, [False] * 3, [True, False, False], [True, False, True]]
    assert full.z_order[3].tolist() == [1, 0, 0]
    assert full.segmentations[0].any() and not full.segmentations[1].any()  # the cells of a box, for object_weight
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        told = drop_locations(full, LocationDropout(), generator)
        kinds = torch.stack([told.present[kind] for kind in KINDS])
        assert torch.equal(kinds.any(0), told.used)
        assert all((told.present[kind] <= full.present[kind]).all() for kind in KINDS)
        assert (told.z_known <= full.z_known).all()
        assert torch.equal(told.segmentation_channel >= 0, told.present["mask"])


class Listed:
    def __init__(self, examples):
        self.examples, self.categories = examples, {}

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


def test_shards_of_the_drawn_world_hold_no_more_than_before(drawn):
    names = {path.stem for path in (drawn / "scenes" / "00000").glob("*.npy")}
    assert names == {"images", "count", "boxes", "points", "scribbles", "mask_points", "regions", "z_order", "latents"}


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Twelve good entries, of which one has boxes alone, and three bad ones."""
    folder = tmp_path_factory.mktemp("coco")
    export_coco(home_made_world(64), folder, 15)
    data = json.loads((folder / "instances.json").read_text())
    for annotation in data["annotations"]:
        del annotation["z_order"]
        if annotation["image_id"] == 2:
            annotation.pop("segmentation"), annotation.pop("visible")
    names = [image["file_name"] for image in data["images"]]
    (folder / names[3]).unlink()
    (folder / names[5]).write_bytes((folder / names[5]).read_bytes()[:700])
    Image.new("RGB", (64, 40)).save(folder / names[9])
    (folder / "instances.json").write_text(json.dumps(data))
    return folder


def test_bad_entries_are_told_and_stop_nothing(coco, tmp_path, caplog):
    config = DatasetConfig(str(coco), sizes=((64, 64),), region_px=16, shard=6)
    with caplog.at_level(logging.WARNING):
        read_scenes(config, tmp_path / "one")
    told = [message for message in caplog.messages if "left out" in message]
    assert [re.search(r"entry (\d+)", message)[1] for message in told] == ["3", "5", "9"]
    assert "cannot be found" in told[0] and "cannot be read" in told[1] and "64 x 40 pixels" in told[2]
    reports = [json.loads(path.read_text())["left_out"] for path in sorted((tmp_path / "one").glob("entries-*"))]
    assert [list(report) for report in reports] == [["3", "5"], ["9"], []]
    cache = SceneCache(tmp_path / "one")
    assert len(cache) == 12
    present = cache.rows("present", range(12))
    assert present[1, 0].tolist() == [True, False, False, False] and present[2, 0].all()
    assert not cache.rows("z_known", range(12)).any()

    # Two processes that read make the same files; so does a stage that was killed between two shards.
    read_scenes(replace(config, workers=2), tmp_path / "two")
    (tmp_path / "two" / "entries-00001.json").unlink()
    (tmp_path / "two" / "00001").rename(tmp_path / "gone")
    read_scenes(config, tmp_path / "two")
    for path in sorted((tmp_path / "one").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path
    with pytest.raises(SettingsError, match=r"other settings of dataset\.max_instances; use another run folder"):
        read_scenes(replace(config, max_instances=3), tmp_path / "one")


def test_nothing_usable_is_an_error(coco, tmp_path):
    config = DatasetConfig(str(coco), images=str(tmp_path / "nowhere"), sizes=((64, 64),))
    data = json.loads((coco / "instances.json").read_text())
    (tmp_path / "instances.json").write_text(json.dumps(data))
    with pytest.raises(SettingsError, match=r"none of 15 entries can be used; .*entries-00000\.json says why"):
        read_scenes(replace(config, path=str(tmp_path / "instances.json")), tmp_path / "scenes")


@pytest.fixture(scope="module")
def adapting(recipe, base, coco):
    segmentation = {"channels": 4, "size": 32, "tokens": 2, "widths": (4, 4, 8, 8), "depths": (1, 1, 1, 1)}
    options = {"hidden_dim": 16, "frequencies": 4, "slots": 8, "segmentation": segmentation}
    diffusion = replace(recipe.diffusion, base=str(base), train="adapter", object_weight=1.0)
    dataset = DatasetConfig(str(coco), sizes=((64, 64),), region_px=16)
    return replace(recipe, diffusion=diffusion, adapter=options, dataset=dataset)


def test_pictures_of_several_sizes_are_learned_in_turn(adapting, tmp_path):
    examples = [painted(96, 64, (8, 8, 60, 60)), painted(64, 96, (8, 8, 60, 60)), painted(70, 96, (8, 8, 60, 60))]
    write_dataset(Listed(examples * 4), tmp_path / "set", "coco")
    sizes = ((96, 64), (64, 96))
    recipe = replace(adapting, dataset=replace(adapting.dataset, path=str(tmp_path / "set"), sizes=sizes, shard=5))
    stages.scenes(recipe, tmp_path)
    stages.latents(recipe, tmp_path)
    task = stages.diffusion_task(recipe, tmp_path)
    seen = []
    task.unet.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[2:])))
    for step in range(8):
        assert torch.isfinite(task.loss(step)[0])
        assert torch.equal(task.loss(step)[0], task.loss(step)[0])
    assert set(seen) == {(16, 24), (24, 16)}
    with torch.no_grad():
        task.preview(0, tmp_path / "a.png")
    wrong = replace(recipe, dataset=replace(recipe.dataset, sizes=((66, 64),)))
    stages.scenes(wrong, tmp_path / "wrong")
    with pytest.raises(SettingsError, match="66 x 64: expected a multiple of 4"):
        stages.latents(wrong, tmp_path / "wrong")


def test_latents_need_not_be_kept(adapting, tmp_path):
    stages.scenes(adapting, tmp_path)
    fresh = replace(adapting, diffusion=replace(adapting.diffusion, cache_latents=False))
    assert "latents" in stages.names(adapting) and "latents" not in stages.names(fresh)
    made = stages.diffusion_task(fresh, tmp_path)
    stages.latents(adapting, tmp_path)
    kept = stages.diffusion_task(adapting, tmp_path)
    for step in range(3):
        torch.testing.assert_close(made.loss(step)[0], kept.loss(step)[0], atol=2e-3, rtol=2e-3)
    stages.diffusion(fresh, tmp_path, stop_after=2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointed_gradients_are_the_same(adapting, tmp_path, precision):
    stages.scenes(adapting, tmp_path)
    adapter = {**adapting.adapter, "relative_values": 8}
    found, recomputed = [], 0
    for checkpointing in (False, True):
        optimiser = replace(adapting.diffusion.optimiser, precision=precision)
        config = replace(
            adapting.diffusion, cache_latents=False, gradient_checkpointing=checkpointing, optimiser=optimiser
        )
        recipe = replace(adapting, adapter=adapter, diffusion=config)
        task = stages.DiffusionTask(recipe, SceneCache(tmp_path / "scenes"), stages._parts(recipe, tmp_path))
        with torch.no_grad():
            for parameter in task.adapter.parameters():
                parameter.add_(0.02)  # gates and maps that are zero hide gradients
        calls = []
        task.unet.up_blocks[-1].resnets[-1].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        task.loss(0)[0].backward()
        recomputed = len(calls)
        found.append({name: p.grad for name, p in task.adapter.named_parameters() if p.grad is not None})
    assert recomputed == 2  # forward, and again in the backward pass
    assert found[0].keys() == found[1].keys() and any("relative" in name for name in found[0])
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_what_a_data_set_cannot_train_is_refused(recipe, adapting):
    with pytest.raises(SettingsError, match=r"give diffusion\.base"):
        replace(recipe, dataset=DatasetConfig("coco"))
    with pytest.raises(SettingsError, match=r"dataset\.sizes.*pairs"):
        DatasetConfig("coco", sizes=((64,),))


def test_the_drawn_world_is_not_mixed_with_a_data_set(recipe, adapting, drawn, world, tmp_path):
    stages.scenes(adapting, tmp_path)
    with pytest.raises(SettingsError, match="holds scenes of a data set"):
        stages.scenes(recipe, tmp_path, world)
    with pytest.raises(SettingsError, match="not of a data set"):
        stages.scenes(adapting, drawn)


def start(repository, recipe, coco, run):
    """The command of the docs, in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = ["train", str(recipe), "--dataset", str(coco), "--run", str(run)]
    shared = {"PYTHONPATH": str(repository / "src"), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "instancediffusion", *command],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]


@pytest.mark.slow
def test_adapter_recipe_on_a_coco_folder_is_killed_and_continues_to_the_same_bits(repository, coco, base, tmp_path):
    optimiser = "checkpoint_every = 1\nbatch_size = 4\n"
    (tmp_path / "adapter.toml").write_text(
        f'base = "{repository / "recipes" / "adapter.toml"}"\n[dataset]\nsizes = [[64, 64]]\n'
        f'[relative]\nsteps = 2\n{optimiser}[diffusion]\nbase = "{base}"\n'
        f'[diffusion.optimiser]\nsteps = 12\nprecision = "fp32"\npreview_every = 0\n{optimiser}'
    )
    whole = start(repository, tmp_path / "adapter.toml", coco, tmp_path / "whole")
    assert [child.wait(timeout=300) for child in whole] == [0, 0]

    broken = start(repository, tmp_path / "adapter.toml", coco, tmp_path / "broken")
    kept, deadline = tmp_path / "broken" / "diffusion" / "checkpoint.pt", time.monotonic() + 300
    while not kept.exists() and all(child.poll() is None for child in broken) and time.monotonic() < deadline:
        time.sleep(0.01)
    for child in broken:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert 0 < load_checkpoint(kept)["step"] < 12
    again = start(repository, tmp_path / "adapter.toml", coco, tmp_path / "broken")
    assert [child.wait(timeout=300) for child in again] == [0, 0]

    first, second = (load_checkpoint(tmp_path / name / "diffusion" / "checkpoint.pt") for name in ("whole", "broken"))
    assert first["step"] == second["step"] == 12
    for name, value in first["modules"]["adapter"].items():
        assert torch.equal(value, second["modules"]["adapter"][name]), name
    exported = (tmp_path / "whole" / "export", tmp_path / "broken" / "export")
    cards = [json.loads((folder / "card.json").read_text()) for folder in exported]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]
    assert cards[0]["pictures"] == f"the data set {coco.name}"
