"""Both orders of every overlapping pair: scores known exactly, judges that are told nothing of the order."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from instancediffusion import Box, Instance, Mask, Point, Scene
from instancediffusion.cli import cli
from instancediffusion.cli.progress import Countdown
from instancediffusion.datasets import Example
from instancediffusion.errors import FailureWarning, SettingsError
from instancediffusion.evaluation import EvaluationReport, Seen, SeenInstance
from instancediffusion.evaluation.orders import overlapping_pairs, visible_masks
from instancediffusion.evaluation.suites import Case, run_suite, suite_of
from instancediffusion.evaluation.suites.bench_run import Maker, seeds_of
from instancediffusion.evaluation.suites.found_pictures import find_pictures
from instancediffusion.evaluation.suites.suite_run import read_cases
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.projects.emoji_judge import Judge, JudgeConfig
from instancediffusion.projects.emoji_judge.evaluation_run import layout_world
from instancediffusion.projects.emoji_judge.judge_task import with_words
from instancediffusion.projects.emoji_judge.network import JudgeNetwork
from instancediffusion.projects.emoji_world import KINDS as CATALOGUE
from instancediffusion.projects.overlap_study.composites import Item, compose
from instancediffusion.projects.overlap_study.telling import tell
from instancediffusion.runs import file_sha256
from instancediffusion.scene import ordered, save_scene, without_order
from instancediffusion.scene.inputs import Reading, read_inputs
from tests.evaluation.conftest import Oracle
from tests.projects.overlap_study.tiny_judges import tiny_dino, tiny_sam
from tests.tiny_pipeline import tiny_pipeline

from .conftest import COLOURS, SIZE, block, case, models, told

# Two blocks of 40 x 40 that share 20 x 40, and a third that shares nothing.
RED, BLUE, GREEN = (10, 30, 50, 70), (30, 30, 70, 70), (80, 80, 95, 95)


class ColourDetector:
    """Finds the plain colours that phrases name, and notes what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, image, phrases):
        self.asked.append(tuple(phrases))
        boxes, scores = [], []
        for number, phrase in enumerate(phrases):
            mask = _shows(image, phrase)
            if mask.any():
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                scores.append([0.9 * (k == number) for k in range(len(phrases))])
        sides = np.array([image.width, image.height] * 2)
        return np.array(boxes, float).reshape(-1, 4) / sides, np.array(scores).reshape(-1, len(phrases))

    def describe(self):
        return {"name": "colours"}


class ColourSegmenter:
    """Outlines the colour that has most of the box's rim pixels, wherever else it is."""

    def __call__(self, image, boxes):
        found = []
        for box in boxes:
            x0, y0, x1, y1 = np.round(box * np.array([image.width, image.height] * 2)).astype(int)
            inside = np.zeros((image.height, image.width), bool)
            inside[y0:y1, x0:x1] = True
            fits = {name: _tight(_shows(image, name), (x0, y0, x1, y1)) for name in COLOURS}
            name = next((name for name, fit in fits.items() if fit), None)
            found.append(np.where(inside & _shows(image, name), 5.0, -5.0) if name else np.full(inside.shape, -5.0))
        return np.array(found, np.float32)

    def describe(self):
        return {"name": "colours"}


def _shows(image, phrase):
    colour = next((c for name, c in COLOURS.items() if name in phrase.split()), (1, 2, 3))
    return (np.asarray(image) == colour).all(-1)


def _tight(mask, box):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return len(rows) > 0 and (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == box


def paint(*blocks, size=SIZE):
    """A grey picture with blocks of plain colours, the last one in front."""
    pixels = np.full((SIZE, SIZE, 3), 90, np.uint8)
    for name, (x0, y0, x1, y1) in blocks:
        pixels[y0:y1, x0:x1] = COLOURS[name]
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)


def pair_case(name="street", mask=True, layers=(None, None), **options):
    instances = [told("a red block", *RED, mask=mask), told("a blue block", *BLUE, mask=mask)]
    layered = [dataclasses.replace(one, z_order=z) for one, z in zip(instances, layers, strict=True)]
    return case(name, *layered, **options)


def red_over_blue(size=SIZE):
    return paint(("blue", BLUE), ("red", RED), size=size)


def blue_over_red(size=SIZE):
    return paint(("red", RED), ("blue", BLUE), size=size)


def looking():
    return models(phrases=ColourDetector(), segmenter=ColourSegmenter())


def scores_of(tmp_path, scenes, pictures, looked=None, **options):
    """What the suite says of pictures by name."""
    suite = suite_of("flip")
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return run_suite(suite, suite.requests(scenes), folder, looked or looking(), **options)


def values(table):
    return {name: round(one.value, 9) for name, one in table.scores.items()}


def test_all_as_asked_and_all_turned_round(tmp_path):
    asked = {"street_0-over-1": red_over_blue(), "street_1-over-0": blue_over_red(size=2 * SIZE)}
    looked = looking()
    right = scores_of(tmp_path, [pair_case()], asked, looked)
    # What is covered is 20 x 40 of 40 x 40: taken for the other order, each shows 800 of 1600, or 1600 of 800.
    assert values(right.made) == {
        "pair_right": 1, "exchanged_pair_right": 0, "flipped": 1, "favoured": 0, "prior": 0, "right": 1,
        "undecided": 0, "blend": 0, "visible_iou": 1, "exchanged_visible_iou": 0.5,
        "missed": 0,
    }  # fmt: skip
    # Nobody was told the order: both requests ask the detector the same.
    assert looked.phrases.asked == [("red block", "blue block")] * 2
    turned = {"street_0-over-1": blue_over_red(), "street_1-over-0": red_over_blue()}
    wrong = values(scores_of(tmp_path, [pair_case()], turned).made)
    assert (wrong["pair_right"], wrong["exchanged_pair_right"], wrong["flipped"], wrong["right"]) == (0, 1, 1, 0)
    assert (wrong["favoured"], wrong["visible_iou"], wrong["exchanged_visible_iou"]) == (0, 0.5, 1)


def test_an_order_that_is_favoured_whatever_is_asked(tmp_path):
    scenes = [pair_case("a"), pair_case("b"), pair_case("c"), pair_case("d")]
    always = {
        "a_0-over-1": red_over_blue(), "a_1-over-0": red_over_blue(),
        "b_0-over-1": blue_over_red(), "b_1-over-0": blue_over_red(),
        "c_0-over-1": red_over_blue(), "c_1-over-0": blue_over_red(),
        "d_0-over-1": red_over_blue(), "d_1-over-0": paint(("red", RED)),  # blue is not found
    }  # fmt: skip
    result = scores_of(tmp_path, scenes, always)
    found = values(result.made)
    # a and b are stuck (.5 each, one to either side), c follows, d has one picture that does not decide (.25).
    assert found["favoured"] == pytest.approx((0.5 + 0.5 + 0 + 0.25) / 4)
    assert found["prior"] == pytest.approx((0.5 - 0.5 + 0 + 0.25) / 4)
    assert not {"prior_lower", "prior_larger"} & set(found)  # they stand on one line, and are as large
    assert (found["pair_right"], found["flipped"], found["right"]) == (0.25, 0.25, 5 / 8)
    assert (found["undecided"], found["missed"], found["exchanged_pair_right"]) == (1 / 8, 1 / 16, 0)
    one = result.made.scores["pair_right"]
    assert one.count == 4 and 0 <= one.low < 0.25 < one.high < 1


def test_a_bias_to_the_lower_and_the_larger_is_told(tmp_path):
    red, blue = (10, 30, 50, 70), (30, 20, 60, 50)
    one = case("street", told("a red block", *red), told("a blue block", *blue))
    same = {name: paint(("red", red), ("blue", blue)) for name in ("street_0-over-1", "street_1-over-0")}
    found = values(scores_of(tmp_path, [one], same).made)
    # The second is in front both times; it stands higher and is smaller.
    assert [found[name] for name in ("prior", "prior_lower", "prior_larger", "favoured")] == [-0.5, -0.5, -0.5, 0.5]


def test_what_the_overlap_shows_is_its_blend(tmp_path):
    # A strip 8 wide of the 20 of the overlap is grey, its middle rows without their rim of a hundredth.
    grey = np.asarray(red_over_blue()).copy()
    grey[30:70, 30:38] = 90
    flicker = np.asarray(red_over_blue()).copy()
    flicker[30:70, 42:50] = COLOURS["blue"]
    for pixels in (grey, flicker):
        with pytest.warns(FailureWarning, match="street_1-over-0.png"):
            result = scores_of(tmp_path, [pair_case()], {"street_0-over-1": Image.fromarray(pixels)})
        found = values(result.made)
        assert found["blend"] == pytest.approx(7 / 18) and found["right"] == 1
        assert "pair_right" not in found  # there is no picture of the other order


def test_masks_of_nearer_instances_are_not_to_be_seen(tmp_path):
    front = dataclasses.replace(told("a green block", 40, 20, 60, 50), z_order=9)
    pair = pair_case(layers=(1, 2)).example.scene.instances
    three = case("street", *pair, front)
    pairs = overlapping_pairs(three.example.scene)
    assert pairs.pairs == [(0, 1), (0, 2), (1, 2)] and not pairs.left_out
    wanted = visible_masks(three.example.scene, (0, 1), (SIZE, SIZE))
    assert np.array_equal(wanted[0], block(*RED) & ~block(*BLUE) & ~block(40, 20, 60, 50))
    green = (40, 20, 60, 50)
    shown = {
        "street_0-over-1": paint(("blue", BLUE), ("red", RED), ("green", green)),
        "street_1-over-0": paint(("red", RED), ("blue", BLUE), ("green", green)),
    }
    with pytest.warns(FailureWarning, match="1-over-2.png and 1 more"):
        found = values(scores_of(tmp_path, [three], shown).made)
    # The green one's pixels are no part of the question.
    assert (found["pair_right"], found["blend"], found["visible_iou"]) == (1, 0, 1)


def test_only_pairs_that_can_be_seen_are_asked_for():
    inside = told("a small thing", 20, 40, 30, 50)
    dot = Instance("a dot", point=Point(0.4, 0.5))
    scene = case("x", told("a red block", *RED), inside, dot, told("a green block", *GREEN)).example.scene
    pairs = overlapping_pairs(scene)
    assert pairs.pairs == []
    assert pairs.left_out == {
        "instances without a box or mask": 1,
        "pairs of which one would be hidden by the other": 1,
    }
    with pytest.raises(SettingsError, match=r"flip: no two instances .* overlap.*without a box or mask: 1"):
        suite_of("flip").requests([Case(Example(scene, None, "x.png"), "x")])
    lid = dataclasses.replace(told("a lid", 28, 28, 52, 72), z_order=3)
    covered = case("x", *pair_case(layers=(0, 1)).example.scene.instances, lid).example.scene
    assert overlapping_pairs(covered).left_out["pairs whose overlap lies behind a third instance"] == 1
    # Masks that do not touch are no pair, though their boxes overlap; and large canvases are as small ones.
    corners = block(10, 10, 60, 20) | block(10, 10, 20, 60)
    masks = (Instance("a hook", mask=Mask.from_array(corners)), told("a block", 30, 30, 60, 60))
    assert overlapping_pairs(Scene("x", masks, SIZE, SIZE)).pairs == []
    assert overlapping_pairs(dataclasses.replace(pair_case(mask=False).example.scene, width=8000)).pairs == [(0, 1)]


@pytest.mark.parametrize("layers", [(None, None, None), (1, 1, 1), (5, None, 2), (None, None, 4), (3, 3, None)])
def test_both_orders_differ_in_the_pair_alone(layers):
    instances = [Instance(name, box=Box(0.1, 0.1, 0.5, 0.5), z_order=z) for name, z in zip("abc", layers, strict=True)]
    scene = Scene("x", tuple(instances), SIZE, SIZE)
    one, other = (ordered(scene, *pair) for pair in ((0, 1), (1, 0)))
    assert without_order(one) == without_order(other) == without_order(scene)
    z, w = ([i.z_order for i in s.instances] for s in (one, other))
    assert z[0] > z[1] and (w[0], w[1]) == (z[1], z[0]) and w[2] == z[2]
    if layers[2] is not None and layers[0] is not None and layers[0] != layers[2]:
        assert np.sign(z[0] - z[2]) == np.sign(layers[0] - layers[2])


def test_both_orders_exchange_stated_layers():
    scene = pair_case(layers=(7, -2)).example.scene
    assert ordered(scene, 0, 1) == scene
    assert [one.z_order for one in ordered(scene, 1, 0).instances] == [-2, 7]


def test_missing_and_bad_pictures_are_told_by_name(tmp_path):
    shown = {"a_0-over-1": red_over_blue(), "a_1-over-0": blue_over_red(), "b_0-over-1": red_over_blue()}
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "c_1-over-0.png").write_bytes(b"no picture")
    with pytest.warns(FailureWarning, match=r"flip: no picture b_1-over-0\.png, c_0-over-1\.png; "):
        result = scores_of(tmp_path, [pair_case("a"), pair_case("b"), pair_case("c")], shown)
    assert [one.path.rpartition("/")[2] for one in result.failures] == [
        "c_1-over-0.png",
        "b_1-over-0.png",
        "c_0-over-1.png",
    ]
    assert result.failures[1].reason == "there is no picture of this name"
    assert (result.facts["pictures without a score"], result.facts["requests without a picture"]) == (1, 2)
    assert result.made.scores["pair_right"].count == 1 and result.made.scores["right"].count == 3


def test_samples_count_in_pairs_and_scenes_are_resampled_whole(tmp_path):
    shown = {}
    for k in range(3):
        shown[f"street_0-over-1_{k}"] = red_over_blue()
        shown[f"street_1-over-0_{k + 10}"] = blue_over_red() if k else red_over_blue()
    shown["street_0-over-1_7"] = blue_over_red()  # no fourth one of the other order
    result = scores_of(tmp_path, [pair_case()], shown)
    right = result.made.scores["pair_right"]
    assert (right.value, right.count) == (pytest.approx(2 / 3), 3)
    assert result.made.scores["right"].value == pytest.approx(5 / 7)


def test_the_bound_is_of_the_order_that_real_pictures_show(tmp_path):
    asked = {"street_0-over-1": red_over_blue(), "street_1-over-0": blue_over_red()}
    photo = np.asarray(red_over_blue())

    def with_photo(layers):
        one = pair_case(layers=layers)
        return dataclasses.replace(one, example=dataclasses.replace(one.example, image=photo))

    for layers, right in (((1, 0), 1), ((0, 1), 0)):
        real = scores_of(tmp_path, [with_photo(layers)], asked).real
        assert real.pictures == 1 and values(real)["right"] == right and "pair_right" not in real.scores
        assert values(real)["visible_iou"] == (1 if right else 0.5)
    unknown = values(scores_of(tmp_path, [with_photo((None, None))], asked).real)
    assert unknown["blend"] == 0 and not {"right", "visible_iou", "pair_right"} & set(unknown)
    # A folder of real pictures: the scene's own name, or composites of both orders.
    folder = tmp_path / "real"
    folder.mkdir()
    red_over_blue().save(folder / "street.jpg", quality=100, subsampling=0)
    suite = suite_of("flip")
    names = [[path.name for path in one] for one in find_pictures(suite.requests([pair_case()]), folder, real=True)]
    assert names == [["street.jpg"], []]
    for name, picture in asked.items():
        picture.save(folder / f"{name}.png")
    both = values(scores_of(tmp_path, [pair_case()], asked, real=folder).real)
    assert (both["pair_right"], both["flipped"], both["visible_iou"]) == (1, 1, 1)


def test_boxes_and_masks_are_told_apart(tmp_path):
    shown = {f"{name}_{order}": picture for name in "ab" for order, picture in (
        ("0-over-1", red_over_blue()), ("1-over-0", blue_over_red())
    )}  # fmt: skip
    found = scores_of(tmp_path, [pair_case("a"), pair_case("b", mask=False)], shown).made
    by = found.by["told by"]
    assert set(by) == {"masks", "boxes"} and "visible_iou" not in by["boxes"]
    assert by["boxes"]["pair_right"].value == by["masks"]["pair_right"].value == 1


def test_requests_are_made_from_seeds_of_their_own_or_from_one(tmp_path):
    suite = suite_of("flip")
    scenes = [pair_case("a"), pair_case("b")]
    assert seeds_of(suite.requests(scenes)) == [0, 1, 2, 3]
    suite.same_seed = True
    requests = suite.requests(scenes)
    assert seeds_of(requests) == [0, 0, 1, 1]
    pipeline = tiny_pipeline(tmp_path / "tokenizer")
    settings = GenerationSettings(num_inference_steps=1, mis_fraction=0.0, guidance_scale=1.0)
    # Not told the order, both orders of one seed are one picture; of two seeds they are two.
    pixels = []
    for folder, cases in (("same", requests[:2]), ("own", suite_of("flip").requests(scenes[:1]))):
        maker = Maker({"weights": "w"}, settings, lambda: pipeline, 1, order=False)
        made = maker.make(tmp_path / folder, cases, lambda what, total: Countdown(what, total, quiet=True))
        assert [path.name for (path,) in made] == ["a_0-over-1.png", "a_1-over-0.png"]
        pixels.append([np.asarray(Image.open(path)) for (path,) in made])
    assert np.array_equal(*pixels[0]) and not np.array_equal(*pixels[1])


def test_requests_are_written_for_any_model(tmp_path):
    scene = pair_case(layers=(None, 3)).example.scene
    save_scene(scene, tmp_path / "my street.json")
    arguments = ["scene", "flip", str(tmp_path / "my street.json"), "-o", str(tmp_path / "asked")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0 and "2 requests; scenes: 1, scenes with a pair: 1, pairs: 1" in result.stdout, (
        result.output
    )
    assert CliRunner().invoke(cli, arguments).exit_code == 2  # nothing is written over
    for folder in ("a", "b"):  # one name in two folders: the requests could not be told apart
        (tmp_path / "twice" / folder).mkdir(parents=True)
        save_scene(scene, tmp_path / "twice" / folder / "street.json")
    twice = CliRunner().invoke(cli, ["scene", "flip", str(tmp_path / "twice"), "-o", str(tmp_path / "other")])
    assert twice.exit_code == 2 and "'street_0-over-1'" in twice.stderr and not (tmp_path / "other").exists()
    inputs = read_inputs([str(tmp_path / "asked")], Reading(), (64, 64)).found
    suite = suite_of("flip")
    requests = read_cases(suite, tmp_path / "my street.json")
    assert [one.scene for one in inputs] == [one.example.scene for one in requests]
    # What `generate` makes of them is found.
    for one in inputs:
        (tmp_path / "asked" / f"{one.name}_7.png").touch()
    found = find_pictures(requests, tmp_path / "asked")
    assert [path.name for (path,) in found] == ["my street_0-over-1_7.png", "my street_1-over-0_7.png"]


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_a_perfect_judge_sees_the_order_of_composites(tmp_path, kind):
    world = layout_world(5)
    items = (Item("apple", (0.42, 0.6), 0.3, "red"), Item("pear", (0.57, 0.6), 0.3, "yellow"))
    samples = [compose(world, items, ranks, "table") for ranks in ((1, 0), (0, 1))]
    scene = tell(samples[0], (kind,), order=False)
    shown = {
        f"fruit_{order}": Image.fromarray(sample.image)
        for order, sample in zip(("0-over-1", "1-over-0"), samples, strict=True)
    }
    one = Case(Example(scene, None, "fruit.png"), "fruit")
    found = values(scores_of(tmp_path, [one], shown, models(judge=Oracle(samples))).made)
    assert (found["pair_right"], found["exchanged_pair_right"], found["undecided"]) == (1, 0, 0)
    if kind == "mask":  # part of the overlap of two boxes shows neither
        assert found["blend"] < 0.05
        assert found["visible_iou"] > 0.9 > found["exchanged_visible_iou"] + 0.1


class Blind:
    """A judge that is told nothing: it names what is red an apple, and guesses the whole block behind."""

    kinds = CATALOGUE

    def look(self, images):
        (image,) = images
        labels, instances, wholes = np.zeros((SIZE, SIZE), np.uint8), [], []
        for name, colour, box in (("pear", "blue", BLUE), ("apple", "red", RED)):
            labels[_shows(image, colour)] = len(instances) + 1
            instances.append(SeenInstance(name, colour, None, np.array(box) / SIZE, 0.9))
            wholes.append(block(*box))
        return [Seen(labels, tuple(instances), wholes=np.array(wholes))]

    def describe(self):
        return {"name": "blind"}


def test_a_blind_judge_guesses_what_is_hidden(tmp_path):
    # Told boxes are larger than the blocks; the judge's guess of these says where they overlap.
    boxes = [told("an apple", 5, 25, 52, 75, mask=False), told("a pear", 28, 25, 75, 75, mask=False)]
    shown = {"fruit_0-over-1": red_over_blue(), "fruit_1-over-0": blue_over_red()}
    found = values(scores_of(tmp_path, [case("fruit", *boxes)], shown, models(judge=Blind())).made)
    assert (found["pair_right"], found["blend"], found["missed"]) == (1, 0, 0)


def test_the_command_scores_by_networks_and_by_a_judge(tmp_path):
    world = [told("a red apple", *RED, mask=True), told("a yellow pear", *BLUE, mask=True)]
    save_scene(case("fruit", *world).example.scene, tmp_path / "fruit.json")
    (tmp_path / "images").mkdir()
    for name, picture in (("fruit_0-over-1", red_over_blue()), ("fruit_1-over-0", blue_over_red())):
        picture.save(tmp_path / "images" / f"{name}.png")
    common = ["evaluate", "--suite", "flip", "--scenes", tmp_path / "fruit.json", "--images", tmp_path / "images"]
    networks = ["--phrase-detector", tiny_dino(tmp_path), "--segmenter", tiny_sam(tmp_path)]
    config = JudgeConfig(side_px=64, widths=(8, 8, 8, 8), depths=(0, 0, 0, 0), hidden=8)
    Judge(JudgeNetwork(with_words(config, layout_world(5)))).save(tmp_path / "trained")
    for name, more in (("networks", networks), ("judge", ["--judge", tmp_path / "trained"])):
        result = CliRunner().invoke(cli, list(map(str, [*common, *more, "-o", tmp_path / name])))
        assert result.exit_code == 0, result.output
        report = EvaluationReport.load(tmp_path / name / "report.json")
        group = report.group("flip")
        assert group.generated.pictures == 2 and group.generated.scores["pair_right"].count == 1
        assert report.facts["suites"]["flip"]["pairs"] == 1
        rows = [json.loads(line) for line in (tmp_path / name / "flip_pictures.jsonl").read_text().splitlines()]
        assert [(row["scene"], row["front_asked"]) for row in rows] == [("fruit_0-over-1", 0), ("fruit_1-over-0", 1)]
    assert set(report.judge["flip"]) == {"judge"}
    assert report.judge["flip"]["judge"]["sha256"] == file_sha256(tmp_path / "trained" / "model.safetensors")
    page = (tmp_path / "judge" / "report.html").read_text()
    assert "pair accuracy" in page and page.count("<figure>") == 4
    for bad, why in (
        ([*common, "--same-seed"], "--same-seed goes with"),
        ([*common[:2], "coco", *common[3:], "--judge", tmp_path / "trained"], "--judge goes with --suite flip"),
    ):
        result = CliRunner().invoke(cli, list(map(str, [*bad, "-o", tmp_path / "bad"])))
        assert result.exit_code == 2 and why in result.stderr
