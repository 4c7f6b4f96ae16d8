import warnings

import pytest
import torch

from instancediffusion.conditioning.text import encode_texts
from instancediffusion.errors import SceneWarning
from instancediffusion.pipeline.familiar import unknown_words, warn_of_unknown_words
from instancediffusion.scene.emphasis import warn_of_foreign_syntax, weighted_parts
from tests.tiny_pipeline import TOKENS, tiny_text_encoder, tiny_tokenizer

# One token for each letter, and 22 of them in a window.
WINDOWS = ["a purple hippopotamus", "under seventeen", "umbrellas"]


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
        cut = encode_texts(["abcdefgh" * 5], tokenizer, encoder, "cpu", captions=["abcdefgh" * 5])
    torch.testing.assert_close(cut.pooled[0], cut.contexts[0, TOKENS - 1])


def test_a_long_prompt_is_read_in_windows_that_cut_no_word(parts):
    """Each window is what the text of its own is, from end to end."""
    tokenizer, encoder = parts
    words = ["a", "purple", "hippopotamus", "under", "seventeen", "umbrellas"]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        bank = encode_texts([" ".join(words), "x"], tokenizer, encoder, "cpu")
        pieces = [encode_texts([text], tokenizer, encoder, "cpu") for text in WINDOWS]
    assert bank.lengths == (len(WINDOWS) * TOKENS, TOKENS)
    torch.testing.assert_close(bank.contexts[0], torch.cat([piece.contexts[0] for piece in pieces]))
    torch.testing.assert_close(bank.pooled[0], pieces[0].pooled[0])


def test_weighted_words_move_away_from_the_empty_text(parts):
    tokenizer, encoder = parts
    with torch.inference_mode():
        bank = encode_texts(["a (red:1.5) cat", "a red cat", "", "(cat:0)", "(a red cat:2)"], tokenizer, encoder, "cpu")
    weighted, plain, empty, none, doubled = bank.contexts
    # start, a, r, e, d, ...: one token for each letter
    torch.testing.assert_close(weighted[2:5], empty[2:5] + 1.5 * (plain[2:5] - empty[2:5]))
    torch.testing.assert_close(weighted[:2], plain[:2])
    torch.testing.assert_close(weighted[5:], plain[5:])
    torch.testing.assert_close(none[1:4], empty[1:4])
    torch.testing.assert_close(bank.pooled[4], bank.pooled[2] + 2 * (bank.pooled[1] - bank.pooled[2]))
    assert (doubled - plain).abs().max() > 0.1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a cat (sitting)", [("a cat (sitting)", 1)]),
        ("(a red balloon:1.5)", [("a red balloon", 1.5)]),
        ("a ((red:1.2) fox:1.5)!", [("a ", 1), ("red", 1.7999999999999998), (" fox", 1.5), ("!", 1)]),
        (r"a \(cat:1.5\)", [("a (cat:1.5)", 1)]),
        ("at 10:30 (noon: 2) (x:.5", [("at 10:30 ", 1), ("noon", 2), (" (x:.5", 1)]),
        ("(a (b) c:2)", [("a (b) c", 2)]),
        ("", []),
    ],
)
def test_weights_are_read(text, parts):
    assert weighted_parts(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "{a white cat|a black cat}",
        "a ((dog))",
        "a [dog] sits",
        "a [cat:dog:0.5]",
        "a cat, <lora:pixel:0.8>",
        "a fluffy++ cat",
        "a (fluffy)1.3 cat",
        "a __colour__ cat",
        "a cat BREAK a dog",
    ],
)
def test_syntax_of_other_programs_is_named(text):
    with pytest.warns(SceneWarning, match="is read as words"):
        warn_of_foreign_syntax([text])


def test_plain_texts_are_no_syntax():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_foreign_syntax(["a cat (sitting)", "(a dog:1.2)", "salt and pepper", "a 4:3 frame", "snake_case"])


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
