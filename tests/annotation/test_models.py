"""The adapters on tiny random models of transformers, loaded from folders as a user loads them."""

import functools
import json
import types

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tests.annotation import tiny_models
from tests.annotation.constructed import save
from transformers import (
    BlipImageProcessorPil,
    DPTImageProcessorPil,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    SamImageProcessorPil,
    SamProcessor,
)

from instancediffusion.annotation.models import KNOWN, florence, grounding_dino
from instancediffusion.annotation.models.pinning import find
from instancediffusion.annotation.models.pixels import Preparation
from instancediffusion.cli import cli
from instancediffusion.datasets import open_dataset
from instancediffusion.errors import ModelError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of a tiny model by its type."""
    root = tmp_path_factory.mktemp("models")
    return functools.lru_cache(lambda kind: tiny_models.ALL[kind](root / kind))


def adapter(folder, stage, batch_size=4):
    found = find(str(folder), stage, CPU)
    return KNOWN[stage][found.kind](found, batch_size)


def pictures(*sizes):
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3)) for width, height in sizes]
    wide = [block.repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8) for block in blocks]
    return [array[:height, :width] for array, (width, height) in zip(wide, sizes, strict=True)]


SIZES = [(60, 40), (30, 50), (33, 33), (200, 20), (16, 16)]


FITTED = {"keep_aspect_ratio": True, "ensure_multiple_of": 14}


@pytest.mark.parametrize(
    "reference, changed",
    [
        (GroundingDinoImageProcessorPil, {"size": {"shortest_edge": 64, "longest_edge": 96}, "do_pad": False}),
        (SamImageProcessorPil, {"size": {"longest_edge": 64}, "do_pad": False}),
        (BlipImageProcessorPil, {"size": {"height": 32, "width": 32}}),
        (DPTImageProcessorPil, {"size": {"height": 56, "width": 56}} | FITTED),
    ],
)
def test_pictures_are_prepared_as_transformers_does(reference, changed):
    processor = reference(**changed)
    preparation = Preparation(json.loads(processor.to_json_string()), "it", CPU)
    for picture in pictures(*SIZES):
        if reference is DPTImageProcessorPil and min(picture.shape[:2]) * 8 < max(picture.shape[:2]):
            continue  # it makes a picture without height of it, and fails
        (wanted,) = processor(picture, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(preparation.tensor(picture), wanted, atol=1e-5, rtol=0)


def test_what_would_move_the_frame_is_refused():
    values = {"image_mean": [0] * 3, "image_std": [1] * 3}
    for odd in ({"size": {"shortest_edge": 32}}, {"size": {"height": 32, "width": 32}, "do_center_crop": True}, {}):
        with pytest.raises(ModelError, match="preprocessor_config"):
            Preparation(values | odd, "it", CPU)


def test_grounding_dino_finds_the_boxes_that_transformers_finds(model, monkeypatch):
    monkeypatch.setattr(grounding_dino, "FLOOR", 0.0)
    folder = model("grounding-dino")
    ours = adapter(folder, "detector")
    pair = pictures(*SIZES[:2])
    tags = [["cat", "dog"], ["apple"]]
    found = ours.detect(pair, tags)
    processor = GroundingDinoProcessor(GroundingDinoImageProcessorPil.from_pretrained(folder), ours._tokenizer)
    for picture, names, detections in zip(pair, tags, found, strict=True):
        inputs = processor(images=picture, text=[names], return_tensors="pt")
        with torch.inference_mode():
            output = ours._model(**inputs)
        (wanted,) = processor.post_process_grounded_object_detection(
            output, inputs["input_ids"], threshold=0.0, text_threshold=0.0, target_sizes=[picture.shape[:2]]
        )
        boxes = torch.tensor([one.box for one in detections])
        torch.testing.assert_close(boxes, wanted["boxes"], atol=1e-3, rtol=1e-4)
        scores = output.logits[0].sigmoid()[:, [1, 3][: len(names)]]  # [CLS] first . second . [SEP]
        torch.testing.assert_close(torch.tensor([one.score for one in detections]), scores.max(dim=1).values)
        assert [one.tag for one in detections] == [names[index] for index in scores.argmax(dim=1)]


def test_tags_beyond_one_prompt_are_asked_in_the_next(model, monkeypatch):
    monkeypatch.setattr(grounding_dino, "FLOOR", 0.0)
    ours = adapter(model("grounding-dino"), "detector", 2)
    tags = ["cat", "traffic light", "dog", "coffee cup", "apple", "red ball", "sign"]
    groups = ours.prompts(tags)
    assert [tag for group in groups for tag in group] == tags and len(groups) == 2
    assert ours.prompts([" ".join(["cat"] * 20)]) == []
    (picture,) = pictures((60, 40))
    (found,) = ours.detect([picture], [tags])
    apart = [one for group in groups for one in ours.detect([picture], [group])[0]]
    assert [one.tag for one in found] == [one.tag for one in apart]
    np.testing.assert_allclose([one.box for one in found], [one.box for one in apart], atol=1e-2)


def test_sam_draws_the_masks_that_transformers_draws(model):
    folder = model("sam")
    ours = adapter(folder, "segmenter")
    pair = pictures(*SIZES[:2])
    boxes = [[(5.0, 5.0, 30.0, 30.0), (10.0, 10.0, 50.0, 39.0)], [(0.0, 0.0, 30.0, 50.0)]]
    size = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    processor = SamProcessor(SamImageProcessorPil(**size))
    for picture, places, masks in zip(pair, boxes, ours.segment(pair, boxes), strict=True):
        inputs = processor(picture, input_boxes=[[list(box) for box in places]], return_tensors="pt")
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        with torch.inference_mode():
            output = ours._model(**{k: v.float() for k, v in inputs.items()}, multimask_output=False)
        (wanted,) = processor.post_process_masks(output.pred_masks, *sizes)
        for mask, drawn in zip(masks, wanted[:, 0].numpy(), strict=True):
            assert 0 < drawn.mean() < 1 and (mask.array != drawn).mean() < 0.01


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_masks_lie_where_the_boxes_are_whatever_the_shape_of_the_picture(model, kind, monkeypatch):
    """The network is replaced by one that fills the box it is given, in the frame it is given it in."""
    ours = adapter(model(kind), "segmenter", 3)
    assert [len(masks) for masks in ours.segment(pictures((60, 40)), [[(5, 5, 30, 30)] * 70])] == [70]

    def fill(pixel_values, input_boxes, multimask_output):
        assert not multimask_output
        cells = torch.arange(256) * 64 / 256 + 0.125
        x0, y0, x1, y1 = input_boxes[..., None].unbind(2)
        rows, columns = (cells > y0) & (cells < y1), (cells > x0) & (cells < x1)
        inside = rows[..., :, None] & columns[..., None, :]
        return types.SimpleNamespace(pred_masks=torch.where(inside, 8.0, -8.0)[:, :, None])

    monkeypatch.setattr(ours, "_model", fill)
    shapes = [(200, 80), (80, 200), (64, 64), (40, 30)]
    boxes = [
        [(20.0, 20.0, 70.0, 60.0), (0.0, 0.0, 80.0, 75.0)],
        [(10.0, 60.0, 70.0, 190.0)],
        [],
        [(4.0, 6.0, 40.0, 30.0)],
    ]
    for (width, height), places, masks in zip(shapes, boxes, ours.segment(pictures(*shapes), boxes), strict=True):
        assert len(masks) == len(places)
        for (x0, y0, x1, y1), mask in zip(places, masks, strict=True):
            wanted = np.zeros((height, width), bool)
            wanted[int(y0) : int(y1), int(x0) : int(x1)] = True
            assert (mask.array != wanted).sum() <= 2.5 * (width + height) * max(width, height) / 256 + 2
            assert (mask.array & wanted).sum() / (mask.array | wanted).sum() > 0.95


def test_florence_tells_tags_from_their_places_and_describes(model, monkeypatch):
    for question in florence._TOKENS:
        monkeypatch.setitem(florence._TOKENS, question, 5)
    ours = adapter(model("florence2"), "tagger", 2)
    assert ours.captions(pictures(*SIZES[:3]), whole=True) == [
        text for picture in pictures(*SIZES[:3]) for text in ours.captions([picture], whole=True)
    ]
    assert all(set(" ".join(tags).split()) & set(tiny_models.WORDS) for tags in ours.tags(pictures(*SIZES[:3])))
    place = "<loc_1><loc_2><loc_3><loc_4>"
    said = f"</s><s>dog{place}traffic light{place}{place}</s><pad>"
    tokens = ours._tokenizer(said, add_special_tokens=False, return_tensors="pt")["input_ids"]
    monkeypatch.setattr(ours._model, "generate", lambda **_: tokens)
    (tags,) = ours.tags(pictures((60, 40)))
    assert [" ".join(tag.split()) for tag in tags] == ["dog", "traffic light"]
    assert ours.captions(pictures((60, 40)), whole=False)[0].split() == ["dog", "traffic", "light"]


@pytest.mark.parametrize("kind", ["blip", "blip-2"])
def test_captions_do_not_depend_on_the_batch(model, kind):
    ours = adapter(model(kind), "captioner", 2)
    if kind == "blip-2":  # its language model has generation settings of its own, which are not saved
        tiny_models.talkative(ours._model.language_model)
    texts = ours.captions(pictures(*SIZES[:3]), whole=False)
    assert all(texts) and texts == [ours.captions([one], whole=True)[0] for one in pictures(*SIZES[:3])]


def test_depth_comes_in_the_pictures_frame_and_metres_are_turned_round(model, tmp_path):
    relative = adapter(model("depth_anything"), "depth")
    metric = adapter(tiny_models.depth_anything(tmp_path / "m", depth_estimation_type="metric", max_depth=20), "depth")
    gradient = np.zeros((40, 90, 3), np.uint8)
    gradient[...] = np.linspace(0, 255, 90, dtype=np.uint8)[None, :, None]

    def ramp(pixel_values):  # says the brightness
        return types.SimpleNamespace(predicted_depth=pixel_values[:, 0] + 3)

    for ours, sign in ((relative, 1), (metric, -1)):
        maps = ours.nearness(pictures(*SIZES))
        assert [found.shape for found in maps] == [(height, width) for width, height in SIZES]
        assert all(np.isfinite(found).all() for found in maps)
        ours._model = ramp
        (drawn,) = ours.nearness([gradient])
        assert (sign * np.diff(drawn, axis=1) >= 0).all() and sign * (drawn[0, -1] - drawn[0, 0]) > 0


def test_a_model_that_cannot_be_the_stage_is_named(model, tmp_path):
    save(tmp_path / "in" / "a.png", pictures((60, 40))[0])
    command = ["data", "annotate", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--tags", "cat"]
    command += ["--detector", str(model("grounding-dino")), "--segmenter", "none", "--captioner", "none"]
    for chosen, told in (
        (["--detector", str(model("blip"))], "type 'blip'"),
        (["--depth", "/nowhere/at/all"], "no such model"),
        (["--tags", " , "], "names nothing"),
        (["--score", "2"], "score = 2.0"),
        (["--to", "nothing"], "known formats"),
        (["-o", str(tmp_path / "in" / "out")], "choose another folder"),
        (["--device", "abacus"], "abacus"),
    ):
        result = CliRunner().invoke(cli, [*command, "--depth", "none", *chosen])
        assert result.exit_code in (1, 2) and told in result.stderr, result.output
    assert not (tmp_path / "out").exists()


def test_the_command_labels_a_folder_with_all_five_models_and_pins_them(model, tmp_path, monkeypatch):
    for question in florence._TOKENS:
        monkeypatch.setitem(florence._TOKENS, question, 5)
    for number, picture in enumerate(pictures((60, 40), (48, 64), (64, 64))):
        save(tmp_path / "in" / f"{number}.png", picture)
    (tmp_path / "in" / "broken.png").write_bytes(b"?")
    recipe = "score = 0.0\nmask_agreement = 0.0\ncaption_side = 4\nbatch_size = 2\n[models]\n"
    recipe += f'tagger = "{model("florence2")}"\ndetector = "{model("grounding-dino")}"\nsegmenter = "nothing"\n'
    recipe += f'captioner = "{model("blip")}"\ndepth = "{model("depth_anything")}"\n'
    (tmp_path / "recipe.toml").write_text(recipe)
    command = ["data", "annotate", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    command += ["--recipe", str(tmp_path / "recipe.toml"), "--segmenter", str(model("sam2"))]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 1 and "4 new, 0 done before, 1 failed" in result.stdout, result.output
    assert "broken.png" in result.stderr
    dataset = open_dataset(tmp_path / "out")
    found = [dataset[n].scene for n in range(len(dataset))]
    assert (
        len(found) == 3 and all(scene.instances for scene in found) and any(i.mask for s in found for i in s.instances)
    )
    assert all("unused" in scene.prompt for scene in found)  # what BLIP's random weights say
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(manifest["models"]) == {"tagger", "detector", "segmenter", "captioner", "depth"}
    assert all(len(pin["sha256"]["model.safetensors"]) == 64 for pin in manifest["models"].values())
    again = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert "up to date; 0 new, 4 done before, 1 failed" in again.output
