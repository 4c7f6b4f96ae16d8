"""`evaluate --suite`: from files to the report, with pictures of others and with pictures made for it."""

import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from instancediffusion import Scene
from instancediffusion.cli import cli
from instancediffusion.cli.progress import Countdown
from instancediffusion.cli.suite_options import SUITES
from instancediffusion.datasets import Example
from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.evaluation import EvaluationReport
from instancediffusion.evaluation.report import ScoreTable
from instancediffusion.evaluation.suites import SUITES as REGISTERED
from instancediffusion.evaluation.suites import Case, Measure, Suite, register, suite_of
from instancediffusion.evaluation.suites.bench_run import Maker
from instancediffusion.evaluation.suites.found_pictures import find_pictures
from instancediffusion.evaluation.suites.suite import Values, known
from instancediffusion.evaluation.suites.suite_run import read_cases
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.runs import RunConflictError
from tests.tiny_pipeline import tiny_pipeline

from .conftest import case


def quiet(what, total):
    return Countdown(what, total, quiet=True)


def test_every_suite_is_offered():
    assert set(SUITES) == set(REGISTERED)
    for name in SUITES:
        suite = suite_of(name)
        for figures in suite.published:
            assert set(figures.values) <= set(suite.measures)


def write_set(folder):
    """Two photographs with a dog each, one of whose annotations is bad; and what a detector says."""
    (folder / "photos").mkdir()
    (folder / "made").mkdir()
    images, annotations, results = [], [], []
    for number in (1, 2, 3):
        name = f"{number:012d}"
        images.append({"id": number, "file_name": f"{name}.jpg", "width": 100, "height": 80})
        annotations.append({"id": number, "image_id": number, "category_id": 5, "bbox": [10, 10, 40, 40]})
        Image.fromarray(np.full((80, 100, 3), 60 * number, np.uint8)).save(folder / "photos" / f"{name}.jpg")
        Image.new("RGB", (50, 40)).save(folder / "made" / f"{name}.png")
        results.append({"image_id": number, "category_id": 5, "bbox": [5, 5, 20, 20], "score": 0.9})
    annotations.append({"id": 9, "image_id": 1, "category_id": 5, "bbox": "none"})
    (folder / "made" / "000000000003.png").write_bytes(b"\x89PNG, cut off")
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "dog"}]}
    (folder / "instances.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(results))
    results[0]["bbox"], results[1]["bbox"] = [10, 10, 40, 40], [50, 40, 40, 40]
    (folder / "found_in_photos.json").write_text(json.dumps(results))


def test_pictures_of_others_are_scored(tmp_path):
    write_set(tmp_path)
    options = ["--scenes", tmp_path / "instances.json", "--images", tmp_path / "made"]
    options += ["--detections", tmp_path / "found.json", "--real", tmp_path / "photos"]
    real = ["--real-detections", tmp_path / "found_in_photos.json"]
    out = tmp_path / "scores"
    arguments = ["evaluate", "--suite", "coco", *options, *real, "-o", out]
    result = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [line.rpartition("/")[2] for line in result.stdout.splitlines()] == [
        "coco_pictures.jsonl",
        "report.json",
        "report.md",
        "report.html",
    ]
    report = EvaluationReport.load(out / "report.json")
    group = report.group("coco")
    # Findings are in pixels of the pictures: of those made, 50 x 40, they are right.
    assert group.generated.pictures == 2 and group.generated.scores["bbox_ap"].value == pytest.approx(1)
    # Of the photographs one of two is: precision 1 or, if the wrong one comes first, a half, up to a recall of a half.
    assert group.composites.pictures == 2 and group.composites.scores["bbox_ap50"].value == pytest.approx(51 / 101)
    (failure,) = report.facts["suites"]["coco"]["failures"]
    assert failure["picture"].endswith("000000000003.png")
    markdown, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    for text in (markdown, page):
        assert "InstanceDiffusion, paper, YOLOv8m" in text and "0.388" in text and "000000000003.png" in text
        assert "real pictures" in text
    assert page.count("<figure>") == 4 and "http" not in page
    rows = [json.loads(line) for line in (out / "coco_pictures.jsonl").read_text().splitlines()]
    assert [row["scene"] for row in rows] == ["000000000001", "000000000002"]
    CliRunner().invoke(
        cli, list(map(str, ["evaluate", "--suite", "coco", *options, "-o", out])), catch_exceptions=False
    )
    # What was found in the pictures says nothing of the photographs.
    assert EvaluationReport.load(out / "report.json").group("coco").composites is None


class Brightness(Suite):
    name, title = "brightness", "How bright pictures are"
    measures = {"mean": Measure("brightness", "Mean of all pixels, 0..255.")}  # noqa: RUF012

    def score(self, case, image, models):
        return {"mean": float(np.asarray(image).mean())}

    def aggregate(self, scored):
        values = Values()
        for number, item in enumerate(scored):
            values.add(item.row["mean"], number, item.case)
        return ScoreTable(len(scored), known({"mean": values.micro()}))


def test_a_suite_of_ones_own(tmp_path):
    """It is one object, registered: the command then knows its name, beside ours, and writes its report."""
    write_set(tmp_path)
    options = ["--scenes", tmp_path / "instances.json", "--images", tmp_path / "photos", "-o", tmp_path / "scores"]
    options = list(map(str, ["evaluate", "--suite", "brightness", *options]))
    try:
        register(Brightness)
        result = CliRunner().invoke(cli, options, catch_exceptions=False)
    finally:
        REGISTERED.pop("brightness")
    assert result.exit_code == 0, result.output
    group = EvaluationReport.load(tmp_path / "scores" / "report.json").group("brightness")
    assert group.generated.scores["mean"].value == pytest.approx(120, abs=0.1)
    assert "How bright pictures are" in (tmp_path / "scores" / "report.md").read_text()
    result = CliRunner().invoke(cli, options)
    assert result.exit_code == 2 and "'brightness': choose from" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--images", "."], "goes with --suite"),
        (["--suite", "coco,nice"], "choose from coco"),
        (["--suite", "coco", "--images", "."], "name the scenes"),
    ],
)
def test_bad_usage_is_told(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["evaluate", "-o", "scores", *arguments])
    assert result.exit_code == 2 and told in result.stderr and result.stderr.count("\n") == 1


def test_scenes_of_any_file(tmp_path):
    scene = Scene("a dog", (), 64, 64)
    (tmp_path / "one.json").write_text(json.dumps(scene.to_dict()))
    (found,) = read_cases(suite_of("coco"), tmp_path / "one.json")
    assert (found.name, found.example.scene) == ("one", scene)
    with pytest.raises(SettingsError, match="no data set"):
        (tmp_path / "odd.bin").write_bytes(b"\0\1")
        read_cases(suite_of("coco"), tmp_path / "odd.bin")


def test_pictures_are_found_by_name(tmp_path):
    for name in (
        "cat.png",
        "cat_1.png",
        "cat_overlay.png",
        "sub/dog_0.jpg",
        "sub/dog_17.webp",
        ".hidden.png",
        "x_1.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = ["cat", "cat_1", "sub/dog", "dog", "other/x", "none"]
    found = find_pictures([case(name) for name in names], tmp_path)
    assert [[path.relative_to(tmp_path).as_posix() for path in one] for one in found] == [
        ["cat.png"],  # cat_1 is the picture of another scene
        ["cat_1.png"],
        ["sub/dog_0.jpg", "sub/dog_17.webp"],
        ["sub/dog_0.jpg", "sub/dog_17.webp"],
        ["x_1.png"],
        [],
    ]
    with pytest.raises(SettingsError, match=r"no picture of a scene.*zebra\.png"):
        find_pictures([case("zebra")], tmp_path)


def test_missing_pictures_are_made_once_and_a_bad_scene_takes_none_with_it(tmp_path):
    pipeline = tiny_pipeline(tmp_path / "tokenizer")
    scenes = [Scene(prompt, (), 64, 64) for prompt in ("a dog", "a bad cat", "a car")]
    cases = [Case(Example(scene, None, "../up.png"), "../up") for scene in scenes]
    calls = []

    class Moody:
        def __getattr__(self, name):
            return getattr(pipeline, name)

        def __call__(self, scenes, **options):
            calls.append(len(scenes))
            if any("bad" in scene.prompt for scene in scenes):
                raise ModelError("not today")
            return pipeline(scenes, **options)

    settings = GenerationSettings(num_inference_steps=1, mis_fraction=0.0, guidance_scale=1.0)
    maker = Maker({"weights": "w"}, settings, Moody, batch_size=3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = maker.make(tmp_path / "out", cases, quiet)
    assert [len(paths) for paths in made] == [1, 0, 1] and calls == [3, 1, 1, 1]
    assert any("not today" in str(one.message) for one in told)
    assert len({paths[0] for paths in made if paths}) == 2
    assert all((tmp_path / "out" / "pictures") in paths[0].resolve().parents for paths in made if paths)
    before = made[0][0].read_bytes()
    maker.make(tmp_path / "out", cases[:1], quiet)
    assert calls == [3, 1, 1, 1] and made[0][0].read_bytes() == before
    with pytest.raises(RunConflictError, match="--overwrite"):
        Maker({"weights": "v"}, settings, Moody, 3).make(tmp_path / "out", cases, quiet)
