"""The way through `transformers`, with whole detectors and segmenters of random weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.projects.overlap_study.tiny_judges import tiny_dino, tiny_owl, tiny_sam
from transformers import (
    BertConfig,
    BertModel,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    Owlv2ForObjectDetection,
    Owlv2Processor,
)

from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.projects.overlap_study.photographs import PhotographJudge
from instancediffusion.scene import Box, Instance, Point, Scene

HEIGHT, WIDTH = 80, 112
SCENE = Scene(
    "an apple and a pear",
    (
        Instance("a red apple", box=Box(0.1, 0.1, 0.9, 0.9)),
        Instance("a yellow pear, partly covered", point=Point(0.5, 0.5)),
        Instance("a table", box=Box(0.0, 0.0, 1.0, 1.0)),
    ),
    WIDTH,
    HEIGHT,
)
PHRASES = ["red apple", "yellow pear", "table"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def detectors(folder):
    return {"owl": tiny_owl(folder), "dino": tiny_dino(folder)}


@pytest.fixture(scope="module")
def sam(folder):
    return tiny_sam(folder)


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


@pytest.mark.parametrize("name", ["owl", "dino"])
def test_every_picture_gets_boxes_and_outlines_of_its_own_size(detectors, sam, image, name):
    judge = PhotographJudge(detectors[name], str(sam), threshold=0.0)
    boxes, scores = judge._detect(image, PHRASES)
    assert boxes.shape == (len(scores), 4)
    assert scores.shape[1] == 3
    assert ((scores >= 0) & (scores <= 1)).all()
    logits = judge._segment(image, np.array([[0.1, 0.2, 0.5, 0.6], [0.3, 0.3, 0.9, 0.9]]))
    assert (logits.shape, logits.dtype) == ((2, HEIGHT, WIDTH), np.float32)
    assert not np.array_equal(logits[0], logits[1])
    seen = judge.look(image, SCENE)
    assert seen.logits.shape == (3, HEIGHT, WIDTH)
    for box, logit in zip(seen.boxes, seen.logits, strict=True):
        assert np.isfinite(logit).all() if box is not None else np.isneginf(logit).all()
    again = PhotographJudge(detectors[name], sam, threshold=0.0).look(image, SCENE)
    assert np.array_equal(again.logits, seen.logits)
    assert again.detected == seen.detected


def test_some_instance_is_found(detectors, sam, image):
    """Otherwise the tests here would hold of a judge that never sees anything."""
    judges = [PhotographJudge(detector, sam, threshold=0.0) for detector in detectors.values()]
    whole = Scene("x", tuple(Instance(p, box=Box(0.0, 0.0, 1.0, 1.0)) for p in PHRASES), WIDTH, HEIGHT)
    points = [
        Scene("x", tuple(Instance(p, point=Point(x / 10, y / 10)) for p in PHRASES), WIDTH, HEIGHT)
        for x in range(1, 10, 2)
        for y in range(1, 10, 2)
    ]
    for judge in judges:
        assert any(box is not None for scene in (whole, *points) for box in judge.look(image, scene).boxes)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, HEIGHT)])
def test_owl_boxes_and_scores_are_those_of_the_library(detectors, sam, image, size):
    picture = image.resize(size[::-1])
    processor = Owlv2Processor.from_pretrained(detectors["owl"])
    model = Owlv2ForObjectDetection.from_pretrained(detectors["owl"]).eval()
    inputs = processor(text=[PHRASES], images=picture, return_tensors="pt", max_length=16, truncation=True)
    with torch.no_grad():
        answer = model(**inputs)
    theirs = processor.post_process_grounded_object_detection(answer, threshold=0.0, target_sizes=[size])[0]
    boxes, scores = PhotographJudge(detectors["owl"], sam)._detect(picture, PHRASES)
    kept = scores.max(1) > 0
    np.testing.assert_allclose(boxes[kept] * [*size[::-1], *size[::-1]], theirs["boxes"].numpy(), atol=1e-3)
    own = scores[np.flatnonzero(kept), theirs["labels"].numpy()]
    np.testing.assert_allclose(own, theirs["scores"].numpy(), atol=1e-5)
    np.testing.assert_allclose(scores.max(1)[kept], own, atol=1e-5)


def test_dino_boxes_are_those_of_the_library_and_phrases_own_their_tokens(detectors, sam, image):
    processor = GroundingDinoProcessor.from_pretrained(detectors["dino"])
    model = GroundingDinoForObjectDetection.from_pretrained(detectors["dino"]).eval()
    inputs = processor(images=image, text=[PHRASES], return_tensors="pt")
    with torch.no_grad():
        answer = model(**inputs)
    theirs = processor.post_process_grounded_object_detection(answer, threshold=0.0, target_sizes=[(HEIGHT, WIDTH)])[0]
    judge = PhotographJudge(detectors["dino"], sam)
    boxes, scores = judge._detect(image, PHRASES)
    np.testing.assert_allclose(boxes * [WIDTH, HEIGHT, WIDTH, HEIGHT], theirs["boxes"].numpy(), atol=1e-3)
    words, spans = judge._detect._sentence(["Red apple", "St. Bernard", "pear"])
    tokens = judge._detect._words.convert_ids_to_tokens(words["input_ids"][0])
    told = ["".join(tokens[n] for n in span).replace("##", "") for span in spans]
    assert told == ["redapple", "stbernard", "pear"]
    assert words["input_ids"].shape[1] == sum(map(len, spans)) + len(spans) + 2
    first = judge._detect._sentence(PHRASES)[1][0]
    np.testing.assert_allclose(scores[:, 0], answer.logits[0].sigmoid()[:, first].mean(1).numpy(), atol=1e-5)


def test_what_is_missing_or_wrong_is_named(detectors, sam, tmp_path):
    with pytest.raises(ModelError, match=r"detector: there is no folder './absent'"):
        PhotographJudge("./absent", sam)
    with pytest.raises(ModelError, match=r"segmenter: somebody/nothing cannot be opened .*check the name, or give"):
        PhotographJudge(detectors["owl"], "somebody/nothing")  # the tests reach no hub
    with pytest.raises(ModelError, match=r"detector: .* of the kind 'sam'; take one of owlv2, owlvit, grounding-dino"):
        PhotographJudge(sam, sam)
    with pytest.raises(ModelError, match=r"segmenter: .* of the kind 'owlv2'; take one of sam"):
        PhotographJudge(detectors["owl"], detectors["owl"])
    with pytest.raises(SettingsError, match="threshold"):
        PhotographJudge(detectors["owl"], sam, threshold=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"detector: .*empty cannot be opened .*whole transformers model"):
        PhotographJudge(tmp_path / "empty", sam)


def test_a_folder_without_weights_or_with_pickled_ones_is_refused(detectors, tmp_path, sam):
    folder = tmp_path / "owl"
    folder.mkdir()
    for path in detectors["owl"].iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"detector: .*cannot be opened"):
        PhotographJudge(folder, sam)
    torch.save(Owlv2ForObjectDetection.from_pretrained(detectors["owl"]).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"detector: .*cannot be opened"):
        PhotographJudge(folder, sam)


def test_a_language_model_is_no_detector(tmp_path, sam):
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="kind 'bert'"):
        PhotographJudge(tmp_path / "bert", sam)
