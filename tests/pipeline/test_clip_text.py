"""The text encoder that processes of one command take in place of transformers': the same texts, the same numbers."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from instancediffusion import Box, Instance, InstanceDiffusionPipeline, Point, Scene
from instancediffusion.checkpoints import mini_folder
from instancediffusion.conditioning.text import encode_texts
from instancediffusion.errors import ModelError, SceneWarning
from instancediffusion.pipeline.clip_text import ClipText, clip_text_parts
from tests.tiny_pipeline import tiny_text_encoder, tiny_tokenizer

TEXTS = (
    *(
        "",
        "a dog",
        "  A  Dog,\tfacing left!",
        "it's 1234 o'clock",
        "naïve café Übergröße e\u0301",
        "猫 and 🐈‍⬛",
        "a (red:1.4) ball",
    ),
    *("<|endoftext|> in <|startoftext|> a text", "a\nb\u00a0c", "x" * 90, "very " * 60 + "long"),
)


@pytest.fixture(scope="module", params=["mini", "tiny"])
def folder(request, tmp_path_factory):
    """A model's folder as far as texts go: that of the package, and one of random weights and other sizes."""
    if request.param == "mini":
        return mini_folder()
    made = tmp_path_factory.mktemp("tiny")
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokens"))
    tokenizer.save_pretrained(made / "tokenizer")
    tiny_text_encoder(len(tokenizer)).save_pretrained(made / "text_encoder")
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_are_read_as_transformers_reads_them(folder, dtype):
    ours = clip_text_parts(folder, dtype)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype).eval()
    kinds = [(ours["tokenizer"], ours["text_encoder"]), (tokenizer, encoder)]
    for skip in (None, 1):
        with torch.no_grad():
            found, expected = (encode_texts(TEXTS, *kind, "cpu", clip_skip=skip) for kind in kinds)
        assert found.row == expected.row and found.lengths == expected.lengths
        close = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 0.03}
        assert torch.allclose(found.contexts, expected.contexts, **close)
        assert torch.allclose(found.pooled, expected.pooled, **close)
    assert found.contexts.std() > 0.1 and found.contexts.dtype == dtype == ours["text_encoder"].dtype


def test_tokens_are_those_of_transformers(folder):
    ours = clip_text_parts(folder, torch.float32)["tokenizer"]
    theirs = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert len(ours) == len(theirs) and ours.model_max_length == theirs.model_max_length
    assert ours.pad_token_id == theirs.pad_token_id and ours.added_tokens_encoder == theirs.added_tokens_encoder
    for text in TEXTS:
        ids = ours(text)["input_ids"]
        assert ids == theirs(text, verbose=False)["input_ids"] and ours.tokenize(text) == theirs.tokenize(text)
        assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    cut = {"padding": "longest", "max_length": 7, "truncation": True, "return_tensors": "pt"}
    assert torch.equal(ours(list(TEXTS), **cut)["input_ids"], theirs(list(TEXTS), **cut)["input_ids"])


def test_a_picture_and_its_warnings_are_the_same():
    pipe = InstanceDiffusionPipeline.from_pretrained("mini")
    pipe.set_progress_bar_config(disable=True)
    scene = Scene(
        "a meadow",
        (Instance("a dog", box=Box(0.1, 0.1, 0.6, 0.7)), Instance("a zygote of " + "tin " * 60, point=Point(0.8, 0.8))),
        128,
        128,
    )
    pictures = []
    for parts in ({}, clip_text_parts(mini_folder(), torch.float32)):
        pipe.register_modules(**parts)
        with pytest.warns(SceneWarning) as told:
            image = pipe(scene, seed=0, num_inference_steps=1).images[0]
        said = sorted(str(one.message) for one in told if one.category is SceneWarning)
        pictures.append((np.asarray(image), said))
    assert isinstance(pipe.text_encoder, ClipText)
    assert ["nothing like it" in said or "is not used" in said for said in pictures[0][1]] == [True, True]
    assert pictures[0][1] == pictures[1][1]
    assert np.abs(pictures[0][0].astype(int) - pictures[1][0]).max() <= 1


def test_weights_that_are_not_there_are_not_left_random(tmp_path):
    whole = mini_folder() / "text_encoder"
    tensors = load_file(whole / "model.safetensors")
    shutil.copy(whole / "config.json", tmp_path)
    save_file(
        {name: value for name, value in tensors.items() if "fc2.bias" not in name}, tmp_path / "model.safetensors"
    )
    with pytest.raises(ModelError, match="text_encoder"):
        ClipText.from_folder(tmp_path)
    config = json.loads((whole / "config.json").read_text())
    with pytest.raises(ModelError, match="gelu_new"):
        ClipText({**config, "hidden_act": "gelu_new"})
