"""Folders of pictures through stages whose answers are known: frames, orders, resume, failures."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.annotation.constructed import Eyes, find, paint, save

from instancediffusion.annotation import (
    AnnotationSettings,
    PictureFolder,
    Target,
    annotate_dataset,
    annotation_run,
    known_pictures,
    open_pictures,
)
from instancediffusion.datasets import FORMATS, Example, open_dataset
from instancediffusion.errors import SettingsError
from instancediffusion.ray_pool import RayOptions
from instancediffusion.scene import Box, Instance, Mask, Scene

SCENE = paint((64, 48), ball=(20, 10, 50, 40), apple=(8, 20, 30, 44))


def run(folder, out, eyes=None, target="coco", engine=None, **changed):
    eyes = eyes or Eyes()
    flags = {name: changed.pop(name) for name in ("overwrite", "retry") if name in changed}
    dataset = folder if not hasattr(folder, "is_dir") else open_pictures(folder)
    settings = AnnotationSettings(**{"batch_size": 2} | changed)
    where = Target(out, target, **flags)
    return annotate_dataset(dataset, where, settings, eyes.stages().pins, eyes.stages, engine=engine)


def examples(path):
    dataset = open_dataset(path)
    return {found.file_name: found for found in (dataset[n] for n in range(len(dataset)))}


def instances(example):
    return dict(zip(example.categories, example.scene.instances, strict=True))


def test_boxes_masks_captions_and_order_are_what_the_picture_shows(tmp_path):
    save(tmp_path / "in" / "a.png", SCENE)
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert (outcome.annotated, outcome.failed) == (1, {}) and outcome.written.instances == 2
    (found,) = examples(tmp_path / "out").values()
    seen = instances(found)
    assert found.scene.prompt == "a photo" and (found.pixels() == SCENE).all()
    assert seen["apple"].box.xyxy == pytest.approx((8 / 64, 20 / 48, 30 / 64, 44 / 48))
    assert all((seen[name].mask.array == find(SCENE, name)).all() for name in seen)
    assert seen["apple"].z_order > seen["ball"].z_order  # it is brighter, and so nearer
    assert seen["ball"].caption == "ball"  # 30 x 30 pixels are too few for a caption
    larger = run(tmp_path / "in", tmp_path / "larger", caption_side=20)
    assert (
        larger.written
        and instances(*examples(tmp_path / "larger").values())["ball"].caption == "ball. something of 30 by 30"
    )


def test_below_the_margin_the_order_is_unknown(tmp_path):
    save(tmp_path / "in" / "a.png", SCENE)
    run(tmp_path / "in", tmp_path / "out", depth_margin=1.0)
    assert [i.z_order for i in next(iter(examples(tmp_path / "out").values())).scene.instances] == [None, None]


def test_pictures_of_any_kind_are_seen_as_people_see_them(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # stored on its side
    stored = np.ascontiguousarray(np.rot90(SCENE))
    save(tmp_path / "in" / "turned.png", stored, exif=turned)
    shown = (SCENE != 128).any(axis=2)
    alpha = np.dstack([np.where(shown[..., None], SCENE, [30, 30, 160]), np.where(shown, 255, 0)])  # hidden blue
    save(tmp_path / "in" / "deep" / "alpha.png", alpha.astype(np.uint8))
    save(tmp_path / "in" / "deep" / "grey16.png", np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20)
    save(tmp_path / "in" / "grey.png", SCENE[..., 0])
    save(tmp_path / "in" / "tiny.png", paint((16, 16), apple=(2, 3, 9, 9)))
    save(tmp_path / "in" / "speck.png", SCENE[:8, :8])
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    outcome = run(tmp_path / "in", tmp_path / "out", batch_size=8)
    assert outcome.failed.keys() == {"speck.png", "broken.jpg"} and "16" in outcome.failed["speck.png"]
    found = examples(tmp_path / "out")
    assert (
        set(found) == {"alpha.png", "grey.png", "grey16.png", "tiny.png", "turned.png"}
        and not found["grey.png"].scene.instances
    )
    for name in ("turned.png", "alpha.png"):
        assert (found[name].pixels() == (SCENE if name == "turned.png" else np.where(alpha[..., 3:], SCENE, 255))).all()
        assert (instances(found[name])["apple"].mask.array == find(SCENE, "apple")).all()
    deep = found["grey16.png"].pixels()
    assert deep.max() == 239 and deep[0, 0, 0] == 0 and (np.diff(deep[..., 0].ravel().astype(int)) >= 0).all()
    assert instances(found["tiny.png"])["apple"].box.xyxy == pytest.approx((2 / 16, 3 / 16, 9 / 16, 9 / 16))


def make(folder, count=7):
    for n in range(count):
        save(folder / f"{n}.png", paint((64, 48), ball=(20 + n, 10, 50, 40), apple=(8, 20, 30, 44)))
    return folder


def test_a_failing_picture_is_kept_aside_with_its_reason_and_the_others_go_on(tmp_path):
    source = make(tmp_path / "in")
    bad = SCENE.copy()
    bad[0, 0] = (0, 255, 0)
    save(source / "3.png", bad)
    outcome = run(source, tmp_path / "out", batch_size=4)
    assert outcome.failed == {"3.png": "RuntimeError: green is not seen"}
    assert set(examples(tmp_path / "out")) == {f"{n}.png" for n in range(7) if n != 3}
    (line,) = (tmp_path / "out.records" / "failed.jsonl").read_text().splitlines()
    assert json.loads(line) == {"picture": "3.png", "reason": "RuntimeError: green is not seen"}
    eyes = Eyes()
    again = run(source, tmp_path / "out", eyes, batch_size=4)
    assert (eyes.seen, again.annotated, again.written) == (0, 0, None) and again.failed == outcome.failed
    run(source, tmp_path / "out", eyes, batch_size=4, retry=True)
    assert eyes.seen
    save(source / "3.png", SCENE)  # another picture of that name
    mended = run(source, tmp_path / "out", batch_size=4)
    assert (mended.annotated, mended.failed, mended.written.pictures) == (1, {}, 7)


def test_a_run_that_was_killed_goes_on_and_gives_what_one_without_a_stop_gives(tmp_path):
    source = make(tmp_path / "in")
    run(source, tmp_path / "whole")

    class Killed(Eyes):
        def captions(self, pictures, *, whole):
            if self.seen > 4:
                raise KeyboardInterrupt
            return super().captions(pictures, whole=whole)

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", Killed())
    assert not (tmp_path / "out").exists()
    eyes = Eyes()
    assert run(source, tmp_path / "out", eyes).annotated == 3 and eyes.seen == 3
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len(files) == 10
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()

    (source / "8.png").write_bytes((source / "0.png").read_bytes())
    (source / "1.png").unlink()
    (tmp_path / "out.records" / "2.png.json").unlink()
    changed = run(source, tmp_path / "out")
    assert changed.annotated == 2 and set(examples(tmp_path / "out")) == {f"{n}.png" for n in (0, 2, 3, 4, 5, 6, 8)}


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", ["coco", "yolo"])
def test_pictures_that_come_later_give_the_data_set_of_one_run(target, tmp_path, monkeypatch):
    monkeypatch.setattr(known_pictures, "_SETTLED_NS", 0)  # else files that were just written are read again
    source = make(tmp_path / "in", 8)
    save(source / "4.png", SCENE, compress_level=0)
    (source / "broken.jpg").write_bytes(b"no picture")
    out, read = tmp_path / "out", []
    getitem = PictureFolder.__getitem__
    monkeypatch.setattr(PictureFolder, "__getitem__", lambda self, n: read.append(self.key(n)) or getitem(self, n))

    def again():
        read.clear()
        outcome = run(source, out, target=target)
        seen = sorted(set(read))
        run(source, tmp_path / "whole", target=target)
        assert files(out) == files(tmp_path / "whole")
        for name in ("whole", "whole.records"):
            shutil.rmtree(tmp_path / name)
        return outcome.annotated, seen

    assert again()[0] == 9
    assert again() == (0, [])  # nothing is read
    save(source / "9.png", SCENE)
    assert again() == (1, ["9.png", "broken.jpg"])  # a batch of two
    (source / "3.png").unlink()
    assert again() == (0, [])
    # Another picture of the same length and time.
    before = (source / "4.png").stat()
    save(source / "4.png", np.ascontiguousarray(SCENE[::-1]), compress_level=0)
    os.utime(source / "4.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (source / "4.png").stat().st_size == before.st_size
    annotated, seen = again()
    assert annotated == 1 and "4.png" in seen
    # Stopped between the old data set and the new one.
    (source / "5.png").unlink()
    rename = Path.rename

    def stopped(self, to):
        if self.name == ".new":
            raise KeyboardInterrupt
        return rename(self, to)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", stopped)
        run(source, out, target=target)
    assert not out.exists()
    assert again()[0] == 0
    next(out.rglob("*.png")).unlink()
    with pytest.raises(SettingsError, match="was changed since"):
        run(source, out, target=target)
    run(source, out, target=target, overwrite=True)
    assert again() == (0, [])


class Elsewhere(Eyes):
    """Eyes on another machine: what they are given, and what they say, went through a pickle."""

    opened = 0

    @classmethod
    def map(cls, open_, apply, items, options):
        there = pickle.loads(pickle.dumps((apply, items)))
        cls.opened += bool(items)
        stages = open_()
        for index in reversed(range(len(items))):
            yield index, pickle.loads(pickle.dumps(there[0](stages, there[1][index])))


def test_a_cluster_gives_what_this_process_gives(tmp_path, monkeypatch):
    source = make(tmp_path / "in", 9)
    bad = SCENE.copy()
    bad[0, 0] = (0, 255, 0)
    save(source / "3.png", bad)
    (source / "broken.jpg").write_bytes(b"no picture")
    here = run(source, tmp_path / "here")
    size = sum(path.stat().st_size for path in source.iterdir())
    monkeypatch.setattr(annotation_run, "ray_map", Elsewhere.map)
    monkeypatch.setattr(annotation_run, "SENT_BYTES", size // 2)
    there = run(source, tmp_path / "there", engine=RayOptions())
    assert (there.annotated, there.failed, there.written) == (10, here.failed, here.written) and len(there.failed) == 2
    assert Elsewhere.opened in (2, 3)  # shares of the pictures, each with models of its own
    first, second = (examples(tmp_path / name) for name in ("here", "there"))
    assert first == second and all((first[name].pixels() == second[name].pixels()).all() for name in first)
    # Gone on with by either.
    save(source / "99.png", SCENE)
    again = [run(source, tmp_path / name, engine=engine) for name, engine in (("here", RayOptions()), ("there", None))]
    assert [one.annotated for one in again] == [1, 1]
    assert examples(tmp_path / "here") == examples(tmp_path / "there")
    assert run(source, tmp_path / "here", Eyes(), engine=RayOptions()).written is None and Elsewhere.opened in (3, 4)


def test_nothing_is_replaced_in_silence(tmp_path):
    source, out = make(tmp_path / "in", 2), tmp_path / "out"
    save(tmp_path / "mine" / "x.png", SCENE)
    for flags in ({}, {"overwrite": True}):
        with pytest.raises(SettingsError, match="mine"):
            run(source, tmp_path / "mine", **flags)
    run(source, out)
    with pytest.raises(SettingsError, match="other settings"):
        run(source, out, score=0.5)
    assert run(source, out, score=0.5, overwrite=True).annotated == 2
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["settings"]["score"] == 0.5 and manifest["models"]["detector"] == {"model": "eyes"}
    (out / "instances.json").write_text((out / "instances.json").read_text() + " ")
    save(source / "new.png", SCENE)
    with pytest.raises(SettingsError, match=r"instances\.json: was changed"):
        run(source, out, score=0.5)
    assert run(source, out, score=0.5, overwrite=True).written.pictures == 3
    with pytest.raises(SettingsError, match="no picture could be annotated"):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "a.png").write_bytes(b"")
        run(tmp_path / "empty", tmp_path / "none")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.filterwarnings("ignore::instancediffusion.errors.SceneWarning")
def test_every_format_is_read_back_with_the_manifest_in_it(name, tmp_path):
    run(make(tmp_path / "in", 3), tmp_path / "out", target=name)
    dataset = open_dataset(tmp_path / "out")
    assert len(dataset) == 3 and all(len(dataset[n].scene.instances) == 2 for n in range(3))


class Labelled:
    """A data set of one picture."""

    def __init__(self, example):
        self.example, self.categories = example, {}

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return (self.example,)[index]


def test_labels_that_are_there_stay_and_what_they_lack_is_added(tmp_path):
    box = Box(20 / 64, 10 / 48, 50 / 64, 40 / 48)
    mine = Instance("my apple", mask=Mask.from_array(find(SCENE, "apple")))
    given = Example(
        Scene("ball, my apple", (Instance("ball", box=box), mine), 64, 48), SCENE, "a.png", 7, ("ball", "fruit")
    )
    run(Labelled(given), tmp_path / "out", caption_side=20)
    found = examples(tmp_path / "out")["a.png"]
    seen = instances(found)
    assert found.image_id == 7 and found.scene.prompt == "a photo"
    assert seen["ball"].box == box and (seen["ball"].mask.array == find(SCENE, "ball")).all()
    assert seen["fruit"].caption == "my apple" and seen["fruit"].mask == mine.mask
    assert seen["ball"].caption == "ball. something of 30 by 30" and seen["fruit"].z_order > seen["ball"].z_order


def test_amodal_annotations_go_before_depth(tmp_path):
    """The ball is whole and hides a part of the apple, though it is darker."""
    ball = np.zeros((48, 64), bool)
    ball[10:40, 20:50] = True
    apple = np.zeros((48, 64), bool)
    apple[20:44, 8:30] = True
    instances_ = tuple(Instance(name, mask=Mask.from_array(mask)) for name, mask in (("ball", ball), ("apple", apple)))
    visible = tuple(map(Mask.from_array, (ball, apple & ~ball)))
    shown = paint((64, 48), apple=(8, 20, 30, 44), ball=(20, 10, 50, 40))
    given = Example(Scene("fruit", instances_, 64, 48), shown, "a.png", 1, ("ball", "apple"), visible)
    run(Labelled(given), tmp_path / "out")
    seen = instances(examples(tmp_path / "out")["a.png"])
    assert (seen["ball"].z_order, seen["apple"].z_order) == (1, 0)
    run(Labelled(given), tmp_path / "depth", order="depth")
    seen = instances(examples(tmp_path / "depth")["a.png"])
    assert (seen["ball"].z_order, seen["apple"].z_order) == (0, 1)


def test_a_folder_of_plain_pictures_is_not_taken_for_a_data_set(tmp_path):
    assert isinstance(open_pictures(make(tmp_path / "in", 1)), PictureFolder)
