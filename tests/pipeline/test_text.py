import warnings

import pytest
import torch

from instancediffusion.errors import SceneWarning
from instancediffusion.pipeline.text import encode_texts
from instancediffusion.pipeline.vocabulary import unknown_words, warn_of_unknown_words
from tests.tiny_pipeline import TOKENS, tiny_text_encoder, tiny_tokenizer


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokens"))
    return tokenizer, tiny_text_encoder(len(tokenizer))


def test_a_caption_gives_what_it_gives_alone_and_without_padding(parts):
    """Training encoded captions one by one, unpadded, and took the state at the end of the text."""
    tokenizer, encoder = parts
    texts = ["a cat", "", "a red fire engine", "x"]
    with torch.inference_mode():
        bank = encode_texts([*texts, "a cat"], tokenizer, encoder, "cpu")
        assert bank.contexts.shape == (4, TOKENS, 32)
        for text in texts:
            alone = encoder(tokenizer([text], return_tensors="pt")["input_ids"]).last_hidden_state[0]
            row = bank.row[text]
            torch.testing.assert_close(bank.pooled[row], alone[-1], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(bank.contexts[row, : len(alone)], alone, rtol=1e-5, atol=1e-5)


def test_many_texts_are_encoded_as_few_are(parts):
    tokenizer, encoder = parts
    texts = [f"thing {k}" for k in range(40)]
    with torch.inference_mode():
        bank = encode_texts(texts, tokenizer, encoder, "cpu")
        single = encode_texts(texts[35:36], tokenizer, encoder, "cpu")
    torch.testing.assert_close(bank.contexts[bank.row["thing 35"]], single.contexts[0], rtol=1e-5, atol=1e-5)


def test_a_cut_keeps_the_end_of_text(parts):
    tokenizer, encoder = parts
    with torch.inference_mode(), pytest.warns(SceneWarning, match="it has 42 tokens and the model reads 24"):
        cut = encode_texts(["abcdefgh" * 5], tokenizer, encoder, "cpu")
    torch.testing.assert_close(cut.pooled[0], cut.contexts[0, -1])


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("A red Balloon, 3 cats!", []),
        ("a zebra and a red zebra's cat", ["zebra", "zebra's"]),
        ("ein Bär", ["ein", "bär"]),
        ("", []),
        ("12 % -- ...", []),
    ],
)
def test_words_a_model_has_never_seen_are_named(text, unknown):
    assert unknown_words(text, {"a", "red", "balloon", "cats", "cat", "and"}) == unknown


def test_one_warning_for_each_text_with_unknown_words_and_none_without_a_vocabulary():
    texts = ["a dog", "a unicorn", "a unicorn", "a gryphon on a dog"]
    with pytest.warns(SceneWarning) as caught:
        warn_of_unknown_words(texts, {"a", "dog", "on"})
    assert ["unicorn" in str(w.message) for w in caught] == [True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_words(texts, ())
        warn_of_unknown_words(["a dog"], {"a", "dog"})
