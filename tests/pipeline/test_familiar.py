import warnings

import pytest
import torch
from torch.nn import functional

from instancediffusion import Box, Instance, Scene
from instancediffusion.errors import SceneWarning
from instancediffusion.pipeline import InstanceDiffusionPipeline
from instancediffusion.pipeline.familiar import Familiar
from tests.tiny_pipeline import scene_of, tiny_pipeline, tiny_text_encoder, tiny_tokenizer

KNOWN = ("a dog", "a red cat", "a green tree", "a ball")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokens"))
    return tokenizer, tiny_text_encoder(len(tokenizer))


def test_what_is_known_is_no_stranger_and_likeness_is_the_cosine_about_the_mean_of_the_known(parts):
    tokenizer, encoder = parts
    asked = ["a ball", "zxqv blorf", "a dog", "", "a ball", "a blue cat on the left side"]
    found = Familiar(KNOWN, 0.9999).strangers(asked, tokenizer, encoder)
    assert [caption for caption, _, _ in found] == ["zxqv blorf", "a blue cat on the left side"]
    with torch.no_grad():
        rows = [encoder(tokenizer([text], return_tensors="pt").input_ids).pooler_output[0] for text in KNOWN]
        other = encoder(tokenizer(["zxqv blorf"], return_tensors="pt").input_ids).pooler_output[0]
    known = functional.normalize(torch.stack(rows), dim=1)
    centred = functional.normalize(known - known.mean(0), dim=1)
    likeness = centred @ functional.normalize(functional.normalize(other, dim=0) - known.mean(0), dim=0)
    assert found[0][1] == KNOWN[int(likeness.argmax())]
    assert found[0][2] == pytest.approx(float(likeness.max()), abs=1e-5)
    assert not Familiar(KNOWN, found[0][2] - 1e-4).strangers(["zxqv blorf"], tokenizer, encoder)
    assert Familiar(KNOWN, found[0][2] + 1e-4).strangers(["zxqv blorf"], tokenizer, encoder)


def test_a_model_of_one_thing_and_one_that_may_know_any(parts):
    assert not Familiar(("a dog",), 0.999).strangers(["a dog"], *parts)
    assert not Familiar.read(None).strangers(["zxqv blorf"], *parts)


def test_a_pipeline_warns_of_strangers_also_after_it_was_saved(tmp_path):
    made = tiny_pipeline(tmp_path / "tokens", familiar={"captions": KNOWN, "likeness": 0.999})
    made.save_pretrained(tmp_path / "model")
    loaded = InstanceDiffusionPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    quick = {"num_inference_steps": 1, "seed": 0, "output_type": "latent"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", SceneWarning)
        loaded(scene_of(4), **quick)
    strange = Scene("something", (Instance("zxqv blorf", box=Box(0.0, 0.0, 0.5, 0.5)),), 64, 64)
    for pipeline in (made, loaded):
        with pytest.warns(SceneWarning, match="'zxqv blorf': the model draws nothing like it.*nearest is 'a "):
            pipeline(strange, **quick)
