"""The adapters of networks: whole models of random weights give what a look at their raw answers gives."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation, CLIPModel, CLIPProcessor

from instancediffusion.errors import ModelError
from instancediffusion.evaluation.suites.clip import Clip, Features
from instancediffusion.evaluation.suites.detectors import TransformersDetector

from .tiny_networks import tiny_clip, tiny_detr, tiny_dino, tiny_eomt, tiny_mask2former


@pytest.fixture(scope="module")
def image():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((180, 100), Image.Resampling.BICUBIC)


def test_boxes_of_detr(tmp_path, image):
    detector = TransformersDetector(tiny_detr(tmp_path))
    found = detector(image, "a")
    assert list(detector.labels) == ["dog", "cat"] and found and {one.label for one in found} <= {"dog", "cat"}
    for one in found:
        assert one.mask is None and 0 < one.score <= 1 and (0 <= one.box).all() and (one.box <= 1).all()
        assert (one.box[:2] < one.box[2:]).all()


@pytest.mark.parametrize("make", [tiny_mask2former, tiny_eomt])
def test_masks(tmp_path, image, make):
    """Masks lie where the library's own post-processing lays them, on pictures with margins, too."""
    folder = make(tmp_path)
    found = TransformersDetector(folder)(image, "a")
    assert found and all(one.mask.shape == (100, 180) and one.mask.any() for one in found)
    model = AutoModelForUniversalSegmentation.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        answer = model(**processor(images=image, return_tensors="pt"))
    # The map of the library shows the last of the segments that share a pixel; the union of all is the same.
    (library,) = processor.post_process_instance_segmentation(answer, target_sizes=[(100, 180)], threshold=0.0)
    union = np.any([one.mask for one in found], axis=0)
    own = (library["segmentation"] >= 0).numpy()
    assert union.mean() > 0.05 and (union == own).mean() > 0.9
    for one in found:
        rows, columns = np.nonzero(one.mask)
        box = [columns.min() / 180, rows.min() / 100, (columns.max() + 1) / 180, (rows.max() + 1) / 100]
        assert np.allclose(one.box, box)


def test_clip_is_the_cosine(tmp_path, image):
    folder = tiny_clip(tmp_path)
    images, texts = [image, image.rotate(90)], ["a red object", "a dog"]
    own = Clip(folder).similarities(images, texts)
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    with torch.no_grad():
        answer = model(**processor(text=texts, images=images, return_tensors="pt", padding=True))
        expected = (answer.logits_per_image / model.logit_scale.exp()).numpy()
    assert np.allclose(own, expected, atol=1e-5)
    features = Features(folder)(image)
    assert np.allclose(features / np.linalg.norm(features), answer.image_embeds[0].numpy(), atol=1e-5)


def test_features_and_models_that_do_not_fit(tmp_path, image):
    folder = tiny_dino(tmp_path)
    first, second = Features(folder)(image), Features(folder)(image.rotate(180))
    assert first.shape == (8,) and not np.allclose(first, second)
    with pytest.raises(ModelError, match="'dinov2', which has no list of classes"):
        TransformersDetector(folder)
    with pytest.raises(ModelError, match="take a CLIP model"):
        Clip(folder)
    with pytest.raises(ModelError, match="there is no folder"):
        Features("./nowhere")
