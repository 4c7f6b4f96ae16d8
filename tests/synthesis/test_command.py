"""The command with real models of random weights, and detectors of this project and of transformers."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from instancediffusion.checkpoints import licence_of
from instancediffusion.cli import cli
from instancediffusion.datasets import open_dataset
from instancediffusion.errors import ModelError
from instancediffusion.evaluation import Seen, SeenInstance
from instancediffusion.evaluation.suites.detectors import TransformersDetector
from instancediffusion.pipeline import GenerationSettings, InstanceDiffusionPipeline
from instancediffusion.projects.emoji_judge import Judge, JudgeConfig
from instancediffusion.projects.emoji_judge.network import JudgeNetwork
from instancediffusion.synthesis import JudgeDetector, WordsDetector, load_detector
from tests.evaluation.suites.tiny_networks import tiny_detr, tiny_mask2former
from tests.tiny_pipeline import tiny_pipeline

SPEC = """
pictures = 3
size = [64, 64]
instances = [1, 2]
settings = {num_inference_steps = 1, guidance_scale = 1.0, mis_fraction = 0.0}
[[classes]]
name = "cat"
[[classes]]
name = "dog"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(folder / "tokenizer_of").save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    return folder


def run(*args):
    return CliRunner().invoke(cli, ["dataset", "make", *map(str, args)])


def test_the_command_makes_a_data_set_that_grows(model, tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    done = run(tmp_path / "spec.toml", "-o", tmp_path / "set", "--model", model, "--device", "cpu", "--pictures", 2)
    assert done.exit_code == 0, done.output
    assert "nothing is filtered" in done.stdout and "2 of 2 pictures" in done.stdout
    first = (tmp_path / "set" / "images" / "00000001.png").read_bytes()
    done = run(tmp_path / "spec.toml", "-o", tmp_path / "set", "--model", model, "--device", "cpu", "--batch-size", 1)
    assert done.exit_code == 0 and "3 of 3 pictures" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.endswith(".png")]) == 1
    assert (tmp_path / "set" / "images" / "00000001.png").read_bytes() == first
    card = (tmp_path / "set" / "README.md").read_text()
    assert "license: mit" in card and '"num_inference_steps": 1' in card

    # Each picture is the one that its scene has with its seed in a call of its own.
    dataset = open_dataset(tmp_path / "set")
    pipeline = InstanceDiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    settings = GenerationSettings(num_inference_steps=1, guidance_scale=1.0, mis_fraction=0.0)
    lines = [json.loads(line) for line in (tmp_path / "set" / "generation.jsonl").read_text().splitlines()]
    for index, line in enumerate(lines):
        alone = np.asarray(pipeline(dataset[index].scene, seed=line["seed"], settings=settings).images[0])
        assert np.abs(dataset[index].pixels().astype(int) - alone).max() <= 1


def test_a_judge_that_confirms_nothing_leaves_nothing_and_says_so(model, tmp_path):
    torch.manual_seed(0)
    config = JudgeConfig(
        side_px=64, widths=(8, 8, 8, 8), depths=(0, 0, 0, 0), hidden=8, kinds=("cat", "dog"), colours=("red",)
    )
    Judge(JudgeNetwork(config)).save(tmp_path / "judge")
    (tmp_path / "spec.toml").write_text(SPEC)
    args = (tmp_path / "spec.toml", "-o", tmp_path / "set", "--model", model, "--device", "cpu")
    done = run(*args, "--detector", tmp_path / "judge")
    assert done.exit_code == 2 and "none of 3 pictures is kept" in done.stderr and not (tmp_path / "set").exists()
    assert len(list((tmp_path / "set.making" / "rejected").glob("*.png"))) == 3
    done = run(*args)  # the pictures are there already
    assert done.exit_code == 0 and not [line for line in done.stdout.splitlines() if line.endswith(".png")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("pictures = 3", "pictures = 'many'"), "spec.toml: pictures = 'many': expected int"),
        (("num_inference_steps = 1", "steps = 1"), "steps: unknown setting"),
    ],
)
def test_faults_are_one_line(model, tmp_path, change, told):
    (tmp_path / "spec.toml").write_text(SPEC.replace(*change))
    done = run(tmp_path / "spec.toml", "-o", tmp_path / "set", "--model", model)
    assert done.exit_code == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("set*"))


def test_the_judge_as_a_detector_tells_visible_and_whole():
    labels = np.zeros((10, 20), np.uint8)
    labels[2:6, 4:10] = 1
    wholes = np.zeros((1, 10, 20), bool)
    wholes[0, 2:9, 4:9] = True
    one = SeenInstance("cat", None, None, np.array([-0.1, 0.2, 0.5, 0.9]), 0.7)

    class Constructed:
        def look(self, images):
            return [Seen(labels, (one,), None, wholes) for _ in images]

        def describe(self):
            return {"name": "constructed"}

    ((found,),) = JudgeDetector(Constructed()).detect([np.zeros((10, 20, 3), np.uint8)], ["cat"])
    assert (found.label, found.box, found.score) == ("cat", (0.0, 0.2, 0.5, 0.9), 0.7)
    assert np.array_equal(found.visible, labels == 1) and np.array_equal(found.whole, wholes[0] | (labels == 1))
    again = type(found).from_dict(json.loads(json.dumps(found.to_dict())))
    assert (again.label, again.box, again.score) == (found.label, found.box, found.score)
    assert np.array_equal(again.visible, found.visible) and np.array_equal(again.whole, found.whole)


def test_licences_are_read_where_they_are_stated(tmp_path):
    assert licence_of("mini", tmp_path) == "Apache-2.0"
    assert licence_of("x", tmp_path) == licence_of("x", tmp_path / "gone") == ""
    for text, licence in (("---\nlicense: mit\n---\n", "mit"), ("# none", ""), ("---\nlicense: [\n---\n", "")):
        (tmp_path / "README.md").write_text(text)
        assert licence_of("x", tmp_path) == licence


def noise(count):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("build", [tiny_detr, tiny_mask2former])
def test_a_detector_of_fixed_classes(tmp_path, build):
    detector, images = load_detector(build(tmp_path)), noise(2)
    found = detector.detect(images, ["cat"])
    direct = [one for one in TransformersDetector(str(tmp_path))(images[0], "") if one.score >= 0.05]
    assert found[0] and {one.label for one in found[0]} <= {"cat", "dog"}
    for one in found[0]:
        own = [d for d in direct if (d.label, tuple(np.clip(d.box, 0, 1)), d.score) == (one.label, one.box, one.score)]
        assert own and (one.visible is None) == (build is tiny_detr)
    alone = detector.detect(images[1:], ["cat"])[0]
    assert [(a.label, a.box) for a in alone] == [(b.label, b.box) for b in found[1]]
    assert len(detector.describe()["weights"]) == 64


def test_a_detector_of_classes_in_words():
    boxes = np.array([[-0.1, 0, 0.5, 0.5], [0, 0, 0.52, 0.5], [0.5, 0.5, 1, 1], [0.6, 0, 0.6, 1], [0, 0, 0.5, 0.5]])
    scores = np.array([[0.6, 0.2], [0.7, 0.1], [0.01, 0.02], [0.9, 0.1], [0.1, 0.3]])

    class Constructed:
        def __call__(self, image, phrases):
            assert (image.size, phrases) == ((48, 32), ["cat", "a dog"])
            return boxes, scores

        def describe(self):
            return {"name": "constructed"}

    # The same cat twice, the surer one stays; one too doubtful, one without any area; a dog in the cat's place.
    (found,) = WordsDetector(Constructed()).detect(noise(1), ["cat", "a dog"])
    assert [(one.label, one.box, one.score) for one in found] == [
        ("cat", (0, 0, 0.52, 0.5), 0.7),
        ("a dog", (0, 0, 0.5, 0.5), 0.3),
    ]


def test_what_is_no_detector_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name in (str(tmp_path), str(tmp_path / "gone")):
        with pytest.raises(ModelError, match="detector: "):
            load_detector(name)
