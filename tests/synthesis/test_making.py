"""Data sets end to end: what is filtered, what labels say, what a second run does."""

import dataclasses
import itertools
import json
import shutil
import warnings

import numpy as np
import pytest

from instancediffusion.datasets import FORMATS, open_dataset
from instancediffusion.errors import SceneWarning, SettingsError
from instancediffusion.synthesis import (
    DatasetMaker,
    Detection,
    SceneSampler,
    judge_picture,
    labelled,
    pipeline_pictures,
)

from .painted import FILTER, SETTINGS, SIDE, ColourDetector, Painter, paint, painted_spec


def maker(folder, painter, *, spec=None, detector=None, opened=None, **options):
    def open_pipeline():
        if opened is not None:
            opened.append(1)
        return painter

    make = pipeline_pictures(open_pipeline, SETTINGS, batch_size=3)
    options = {"model": {"weights": "paint"}, "licence": "CC0-1.0"} | options
    return DatasetMaker(
        spec or painted_spec(filter=FILTER), folder, make, settings=SETTINGS, detector=detector, **options
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_are_what_the_detector_confirms(tmp_path):
    spec = painted_spec(24, filter=FILTER)
    sampler = SceneSampler(spec)
    drawn = [sampler.scene(number) for number in range(24)]
    faults = {}
    for number, fault in zip(
        [n for n in range(24) if len(drawn[n].categories) == 2], ("absent", "class", "box"), strict=False
    ):
        faults[number] = fault
    assert len(faults) == 3
    made = maker(tmp_path / "set", Painter(faults), spec=spec, detector=ColourDetector()).go()
    assert (made.pictures, made.kept, made.rejected, made.failed) == (24, 24, 0, {})
    assert made.dropped == 3 and sum(made.reasons.values()) == 3 and len(made.reasons) == 3

    dataset = open_dataset(tmp_path / "set")
    assert list(dataset.categories.values()) == ["dog", "cat", "owl"] and len(dataset) == 24
    told = {line["file_name"]: line for line in lines(tmp_path / "set" / "generation.jsonl")}
    hidden = 0
    for number, example in enumerate(dataset[index] for index in range(24)):
        asked = drawn[number]
        assert example.file_name == f"{number:08d}.png" and example.scene.prompt == asked.scene.prompt
        assert np.array_equal(example.pixels(), paint(asked.scene, faults.get(number, "")))
        nearest = max(range(len(asked.categories)), key=lambda k: asked.scene.instances[k].z_order)
        kept = [k for k in range(len(asked.categories)) if number not in faults or k != nearest]
        line = told[example.file_name]
        assert line["seed"] == asked.seed
        assert [one["kept"] for one in line["instances"]] == [k in kept for k in range(len(asked.categories))]
        assert list(example.categories) == [asked.categories[k] for k in kept]
        for place, k in enumerate(kept):
            one, own = example.scene.instances[place], asked.scene.instances[k]
            assert (one.caption, one.z_order) == (own.caption, own.z_order)
            assert one.box.xyxy == pytest.approx(own.box.xyxy, abs=1e-6)
            alone = paint(dataclasses.replace(asked.scene, instances=(own,)))
            whole = (alone != 128).any(-1)
            # An object that was to stand before it, and is not there, leaves its pixels to the eye.
            seen = (example.pixels() == alone[whole][0]).all(-1)
            assert np.array_equal(example.visible[place].array, seen)
            others = [o for o in asked.scene.instances if o.z_order > own.z_order]
            covered = any(
                (whole & (paint(dataclasses.replace(asked.scene, instances=(o,))) != 128).any(-1)).any() for o in others
            )
            hidden += covered
            assert (one.mask is None) == covered and (covered or np.array_equal(one.mask.array, whole))
    assert hidden > 3
    card = (tmp_path / "set" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc0-1.0\n") and '"detector": "colours"' in card


def test_pictures_with_too_many_faults_are_kept_aside_with_their_reason(tmp_path):
    spec = painted_spec(9, filter=dataclasses.replace(FILTER, max_dropped=0.4))
    drawn = [SceneSampler(spec).scene(number) for number in range(9)]
    two = next(n for n in range(9) if len(drawn[n].categories) == 2)
    three = next(n for n in range(9) if len(drawn[n].categories) == 3)
    painter = Painter({two: "absent", three: "absent"})  # one of two is too many, one of three is not
    made = maker(tmp_path / "set", painter, spec=spec, detector=ColourDetector(), format="yolo").go()
    assert (made.kept, made.rejected, made.dropped) == (8, 1, 1)
    (line,) = lines(made.work / "rejected" / "rejected.jsonl")
    assert (line["number"], line["rejected"]) == (two, "1 of 2 instances are not as given")
    assert [one.get("reason") for one in line["instances"]].count("nothing is seen there") == 1
    assert (made.work / "rejected" / line["picture"]).is_file()
    dataset = open_dataset(tmp_path / "set")
    assert f"{two:08d}.png" not in {dataset[index].file_name for index in range(len(dataset))}


def test_one_bad_scene_or_picture_takes_no_other_with_it(tmp_path):
    full = painted_spec(8, filter=FILTER)
    cannot_look = np.asarray(paint(SceneSampler(full).scene(5).scene)).tobytes()
    detector, painter = ColourDetector(fails=[cannot_look]), Painter(fails=[2])
    made = maker(tmp_path / "set", painter, spec=full, detector=detector).go()
    assert made.failed == {2: "out of paint", 5: "the detector failed: cannot look"} and made.kept == 6
    failed = [line for line in lines(made.work / "rejected" / "rejected.jsonl") if "failed" in line]
    assert [line["number"] for line in failed] == [2, 5]

    # The same command again tries these two alone.
    again, looks = Painter(), ColourDetector()
    made = maker(tmp_path / "set", again, spec=full, detector=looks).go()
    assert again.made == [2] and len(looks.looked) == 2 and made.kept == 8 and not made.failed
    assert len(open_dataset(tmp_path / "set")) == 8

    # A spec of which one scene has no room.
    tight = dataclasses.replace(painted_spec(12, instances=(3, 3), overlap_share=0.0, min_visible=1.0))
    big = dataclasses.replace(tight, classes=tuple(dataclasses.replace(c, size=(0.49, 0.56)) for c in tight.classes))
    made = maker(tmp_path / "tight", Painter(), spec=big).go()
    assert made.failed and made.kept == 12 - len(made.failed) > 0
    assert all("no layout of 3 instances" in reason for reason in made.failed.values())


def test_a_second_run_makes_only_what_is_missing(tmp_path):
    opened = []
    said = []
    first = maker(tmp_path / "set", Painter(), opened=opened, detector=ColourDetector()).go()
    index = (tmp_path / "set" / "instances.json").read_text()
    looks = ColourDetector()
    same = maker(tmp_path / "set", Painter(), opened=opened, detector=looks, say=said.append).go()
    assert opened == [1] and not looks.looked and "everything is there already" in said[-1]
    assert dataclasses.replace(same, failed={}) == first

    # More pictures, another filter: nothing is made or looked at twice.
    more, looks = Painter(), ColourDetector()
    spec = painted_spec(15, filter=dataclasses.replace(FILTER, max_unasked=0))
    made = maker(tmp_path / "set", more, spec=spec, detector=looks).go()
    assert more.made == [12, 13, 14] and len(looks.looked) == 3 and made.kept == 15
    # Fewer again: the first data set to the letter.
    maker(tmp_path / "set", Painter(), detector=ColourDetector()).go()
    assert (tmp_path / "set" / "instances.json").read_text() == index

    # Another spec would make other pictures: that has to be asked for.
    other = painted_spec(seed=1, filter=FILTER)
    with pytest.raises(SettingsError, match="another spec"):
        maker(tmp_path / "set", Painter(), spec=dataclasses.replace(other, seed=0, backgrounds=("on ice",))).go()
    made = maker(
        tmp_path / "set", Painter(), spec=dataclasses.replace(other, seed=0, backgrounds=("on ice",)), replace=True
    ).go()
    assert open_dataset(tmp_path / "set")[0].scene.prompt.endswith("on ice") and made.kept == 12


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_known_of_pictures_gives_the_data_set_of_one_run(tmp_path, monkeypatch):
    filter_ = dataclasses.replace(FILTER, max_dropped=0.4)
    drawn, scene = [], SceneSampler.scene
    monkeypatch.setattr(SceneSampler, "scene", lambda self, number: drawn.append(number) or scene(self, number))

    faults = dict.fromkeys(range(0, 20, 3), "absent")

    def go(name, count):
        drawn.clear()
        spec = painted_spec(count, filter=filter_)
        return maker(tmp_path / name, Painter(faults), spec=spec, detector=ColourDetector()).go()

    def same(count):
        shutil.rmtree(tmp_path / "whole", ignore_errors=True)
        shutil.rmtree(tmp_path / "whole.making", ignore_errors=True)
        whole, here = go("whole", count), tmp_path / "set"
        (tmp_path / "whole" / "README.md").write_text(
            (tmp_path / "whole" / "README.md").read_text().replace("# whole", "# set")
        )
        assert files(here) == files(tmp_path / "whole")
        assert files(made.work / "rejected") == files(whole.work / "rejected")
        return dataclasses.replace(made, folder=whole.folder, work=whole.work) == whole

    made = go("set", 12)
    assert made.rejected and made.dropped and same(12)
    made = go("set", 14)
    assert set(drawn) == {12, 13} and same(14)
    # A picture that is lost is made again, and one that is another one is looked at again.
    (made.work / "pictures" / "00000004_4.png").unlink()
    made = go("set", 15)
    assert set(drawn) == {4, 14} and same(15)
    faults[5] = "absent"
    (made.work / "pictures" / "00000005_5.png").unlink()
    made = go("set", 16)
    assert set(drawn) == {5, 15} and same(16)
    next((tmp_path / "set" / "images").iterdir()).unlink()
    made = go("set", 16)
    assert len(set(drawn)) == 1 and same(16)
    made = go("set", 9)
    assert not drawn and same(9)


def test_a_run_killed_at_any_write_is_gone_on_with(tmp_path, monkeypatch):
    from instancediffusion.synthesis import making

    whole = maker(tmp_path / "whole", Painter(), detector=ColourDetector()).go()
    for name in ("write_dataset", "_json"):  # in the middle of the data set; of what is told of it

        def killed(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(making, name, killed)
            with pytest.raises(KeyboardInterrupt):
                maker(tmp_path / "set", Painter(), detector=ColourDetector()).go()
    rename = making.Path.rename
    # Written, not yet in its place; the old one away, the new one not yet there; and right after each.
    for stop, after in itertools.product((1, 2, 3), (False, True)):
        spec = painted_spec(12 + stop, filter=FILTER)
        calls = []

        def stopped(self, target, stop=stop, after=after, calls=calls):
            calls.append(1)
            if len(calls) == stop:
                if after:
                    rename(self, target)
                raise KeyboardInterrupt
            return rename(self, target)

        maker(tmp_path / "set", Painter(), detector=ColourDetector()).go()
        with monkeypatch.context() as patch:
            patch.setattr(making.Path, "rename", stopped)
            with pytest.raises(KeyboardInterrupt):
                maker(tmp_path / "set", Painter(), spec=spec, detector=ColourDetector()).go()
    made = maker(tmp_path / "set", Painter(), detector=ColourDetector()).go()
    assert (made.kept, made.instances) == (whole.kept, whole.instances)
    one, other = (tmp_path / name / "instances.json" for name in ("whole", "set"))
    assert one.read_text() == other.read_text()


def test_what_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(SettingsError, match=r"mine\.txt"):
        maker(tmp_path / "set", Painter())
    with pytest.raises(SettingsError, match=r"mine\.txt: is a file"):
        maker(tmp_path / "set" / "mine.txt", Painter())
    with pytest.raises(SettingsError, match="known formats"):
        maker(tmp_path / "new", Painter(), format="nothing")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_is_read_back(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SceneWarning)
        made = maker(tmp_path / "set", Painter(), spec=painted_spec(3), detector=ColourDetector(), format=name).go()
        dataset = open_dataset(tmp_path / "set")
        examples = [dataset[index] for index in range(len(dataset))]
    assert len(examples) == 3 and sum(len(one.scene.instances) for one in examples) == made.instances
    assert all(one.pixels().shape == (SIDE, SIDE, 3) for one in examples)


def test_without_a_detector_nothing_is_filtered_and_that_is_said(tmp_path):
    said = []
    made = maker(tmp_path / "set", Painter(dict.fromkeys(range(12), "absent")), say=said.append, licence="a b").go()
    assert made.kept == 12 and not made.dropped and "nothing is filtered" in said[0]
    card = (tmp_path / "set" / "README.md").read_text()
    assert "nothing is filtered" in card and 'license: other\nlicense_name: "a b"' in card
    assert open_dataset(tmp_path / "set")[0].scene.instances[0].mask is None  # nobody knows it


def test_a_detector_of_visible_parts_may_agree_with_what_is_to_be_seen():
    spec = painted_spec(60, filter=dataclasses.replace(FILTER, box_iou=0.9), overlap_share=1.0)
    seen_through = 0
    for number in range(60):
        drawn = SceneSampler(spec).scene(number)
        (found,) = ColourDetector().detect([paint(drawn.scene)], list(spec.labels))
        verdict = judge_picture(drawn, found, spec)
        assert not verdict.dropped  # all is as given, however much is hidden
        guessed = [dataclasses.replace(one, whole=one.visible) for one in found]
        seen_through += len(judge_picture(drawn, guessed, spec).dropped)
        # Labels with the detector's own boxes.
        seen = dataclasses.replace(spec, filter=dataclasses.replace(spec.filter, boxes="seen"))
        boxes = [one.box.xyxy for one in labelled(drawn, verdict, found, seen).scene.instances]
        assert boxes == [found[j].box for j in verdict.detections]
    assert seen_through > 10  # one that claims to see all of an object is held to all of its box


def test_objects_nobody_asked_for_and_doubtful_ones():
    spec = painted_spec(filter=dataclasses.replace(FILTER, max_unasked=0, score=0.5))
    drawn = next(one for one in map(SceneSampler(spec).scene, range(20)) if len(one.categories) == 2)
    (found,) = ColourDetector().detect([paint(drawn.scene)], list(spec.labels))
    absent = next(name for name in ("dog", "cat", "owl") if name not in drawn.categories)
    extra = Detection(absent, (0.0, 0.0, 0.1, 0.1), 0.9)
    assert "1 objects are detected" in judge_picture(drawn, [*found, extra], spec).rejected
    assert not judge_picture(drawn, [*found, dataclasses.replace(extra, score=0.4)], spec).rejected
    assert not judge_picture(drawn, [*found, dataclasses.replace(extra, label="a lamp")], spec).rejected
    assert judge_picture(drawn, [], spec).rejected == "none of 2 instances is as given"
    upper = [dataclasses.replace(one, label=one.label.upper()) for one in found]
    assert not judge_picture(drawn, upper, spec).dropped
