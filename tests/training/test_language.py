"""The text model's teacher, dictionary, grammar and stages, on a dictionary and a teacher of a few words."""

import json
import re
import zlib
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BertConfig, BertModel, BertTokenizer

from instancediffusion.errors import CheckpointError, SettingsError
from instancediffusion.projects.emoji_world import BACKGROUNDS
from instancediffusion.projects.emoji_world.catalogue import KINDS
from instancediffusion.scene.english import plural
from instancediffusion.training import stages
from instancediffusion.training.checkpoint import check_same_recipe, load_checkpoint
from instancediffusion.training.export import known_to
from instancediffusion.training.fit import CHECKPOINT
from instancediffusion.training.language.corpus import build_corpus, common_nouns
from instancediffusion.training.language.filler import dressed
from instancediffusion.training.language.grammar import COLOUR_WORDS, NUMBERS, SIDES, Grammar
from instancediffusion.training.language.prepare import load_grammar, load_lessons
from instancediffusion.training.language.teacher import Teacher, teacher_folder
from instancediffusion.training.language.wordnet import WordNet, held_out, hyponyms
from instancediffusion.training.language.words_task import WordsTask
from instancediffusion.training.text_model import TextSide
from instancediffusion.training.tokenizer import WORD_END, _learn

# word(s), file of the lexicographer, parent, gloss
SYNSETS = {
    "animal": (["animal"], 5, None, "a living thing that moves"),
    "dog": (["dog", "domestic_dog"], 5, "animal", "a tame wolf"),
    "puppy": (["puppy"], 5, "dog", "a young dog"),
    "corgi": (["corgi", "Welsh_corgi"], 5, "dog", "a dog with short legs"),
    "bird": (["bird"], 5, "animal", "an animal with feathers"),
    "duck": (["duck"], 5, "bird", "a bird that swims well"),
    "mallard": (["mallard"], 5, "duck", "a wild duck"),
    "sparrow": (["sparrow"], 5, "bird", "a small brown bird"),
    "meat": (["octopus"], 13, None, "an octopus as food"),
    "octopus": (["octopus"], 5, "animal", "a sea animal with eight arms"),
    "ace": (["ace", "sparrow"], 18, None, "a person of great skill"),
    "gem": (["gem", "jewel"], 6, None, "a cut stone"),
    "ruby": (["ruby"], 6, "gem", "a red gem"),
    "disc": (["disc"], 6, None, "a flat round thing"),
    "plate": (["plate"], 6, "disc", "a round flat thing to eat from"),
    "idea": (["idea"], 9, None, "what is thought"),
}
# Senses in the order of frequency, where it is not that of the list.
FIRST = {"sparrow": "ace"}
WORDS = "a an the red blue green old big two of on in disc gem jewel ruby plate dog puppy corgi bird duck idea".split()


def write_wordnet(folder):
    """A database in WordNet's format, with the licence at its top that the real one has."""
    number = {name: f"{100 + i:08d}" for i, name in enumerate(SYNSETS)}
    licence = "  1 This software and database is provided as is  \n"
    data, senses = [licence], {}
    for name, (words, file, parent, gloss) in SYNSETS.items():
        below = [number[other] for other, (_, _, above, _) in SYNSETS.items() if above == name]
        pointers = [f"@ {number[parent]} n 0000"] if parent else []
        pointers += [f"~ {key} n 0000" for key in below]
        spelled = " ".join(f"{word} 0" for word in words)
        head = f"{number[name]} {file:02d} n {len(words):02x} {spelled} {len(pointers):03d}"
        data.append(f'{" ".join([head, *pointers])} | {gloss}; "an example"  \n')
        for word in words:
            senses.setdefault(word.lower(), []).append(name)
    index = [licence]
    for word, names in sorted(senses.items()):
        names.sort(key=lambda name: name != FIRST.get(word))
        keys = " ".join(number[name] for name in names)
        index.append(f"{word} n {len(names)} 1 ~ {len(names)} 0 {keys}  \n")
    folder.mkdir()
    (folder / "data.noun").write_text("".join(data))
    (folder / "index.noun").write_text("".join(index))
    (folder / "index.adj").write_text(licence + "".join(f"{word} a 1 0 1 0 00000001  \n" for word in ("big", "old")))
    (folder / "cntlist.rev").write_text("dog%1:05:00:: 1 42\nold%3:00:00:: 1 9\ncorgi%1:05:00:: 1 1\n")
    return folder


def write_teacher(folder):
    """A BERT with random weights whose vocabulary holds a few words and all letters."""
    letters = "abcdefghijklmnopqrstuvwxyz'-."
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *WORDS]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(entries)) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=len(dict.fromkeys(entries)), **size)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wordnet_folder(tmp_path_factory):
    return write_wordnet(tmp_path_factory.mktemp("dictionary") / "dict")


@pytest.fixture(scope="module")
def wordnet(wordnet_folder):
    return WordNet(wordnet_folder)


@pytest.fixture(scope="module")
def teacher_at(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture(scope="module")
def teacher(teacher_at):
    return Teacher(teacher_folder(str(teacher_at)))


def test_a_dictionary_tells_what_can_be_seen_and_what_is_narrower(wordnet):
    assert "idea" not in wordnet.nouns() and "welsh corgi" not in wordnet.nouns()
    assert {"dog", "domestic dog", "jewel", "plate"} <= set(wordnet.nouns())
    assert wordnet.adjectives() == ["big", "old"]
    assert wordnet.counts == {"dog": 42, "corgi": 1}  # "old" was counted as an adjective
    assert wordnet.senses[wordnet.sense("octopus")].domain == "animal"  # before its meat, which comes first
    assert wordnet.sense("idea") is None and wordnet.sense("zebra") is None


def test_hyponyms_belong_to_the_nearest_class_and_to_one_alone(wordnet):
    found = hyponyms(wordnet, {"dog": ["dog", "hound"], "bird": ["bird"], "duck": ["duck"], "robot": ["robot"]})
    assert found["dog"] == ["domestic dog", "corgi", "puppy"]
    assert found["duck"] == ["mallard"]
    assert found["bird"] == []  # a sparrow is, more often, a person here
    assert found["robot"] == []


def test_missing_dictionary_and_teacher_are_named_with_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match="wordnet-base"):
        WordNet(tmp_path)
    with pytest.raises(SettingsError, match=r"text\.teacher = 'no_such_package'.*\[train\]"):
        teacher_folder("no_such_package")


def test_a_teacher_reads_a_text_the_same_among_any_others(teacher):
    texts = ["a dog", "the old gem on a big red disc", "zxqv", "two blue birds"]
    together = teacher.encode(texts)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    alone = torch.cat([teacher.encode([text]) for text in texts])
    assert functional.cosine_similarity(together, alone).min() > 0.999


def test_common_nouns_come_first_and_every_text_of_the_corpus_is_readable(wordnet, teacher):
    nouns = common_nouns(wordnet, teacher, 8)
    assert nouns[:4] == ["disc", "gem", "jewel", "ruby"]  # in the order of the teacher's vocabulary
    assert "domestic dog" not in nouns
    corpus = build_corpus(wordnet, teacher, 8, {"dog": ["dog", "hound"]})
    assert corpus.nouns[:2] == ("dog", "hound") and "ruby" in corpus.nouns
    assert corpus == build_corpus(wordnet, teacher, 8, {"dog": ["dog", "hound"]})
    assert len(set(corpus.texts())) == len(corpus.texts()) and all(text.strip() == text for text in corpus.texts())


def test_dressing_keeps_the_phrase():
    rng = np.random.default_rng(0)
    texts = [dressed(rng, "old pickup truck") for _ in range(300)]
    assert all("old pickup truck" in text for text in texts) and len(set(texts)) > 100
    plurals = [dressed(rng, "polar bear", number="three") for _ in range(50)]
    assert all("polar bears" in text and "three" in text for text in plurals)


@pytest.fixture(scope="module")
def grammar():
    return Grammar.of([kind for kind in KINDS if kind.core], {"dog": ["dachshund", "collie"]}, BACKGROUNDS)


def _holds(text, grammar, told, phrase=None):
    """Whether a text says what it is told to say, and nothing else of colour and side."""
    text = text if phrase is None else phrase
    thing = grammar.things[told.kind - 1]
    named = any(noun in text for word in (*thing.words, *thing.narrower) for noun in (word, plural(word)))
    facing = [side for side in SIDES if re.search(rf"(?:facing|look\w+|turned|heading|pointing).{{0,12}} {side}", text)]
    side = [] if not told.side else [SIDES[told.side - 1]]
    colour = not told.colour or any(
        word in text for word in (grammar.colours[told.colour - 1], *COLOUR_WORDS[grammar.colours[told.colour - 1]])
    )
    style = not told.style or grammar.styles[told.style - 1] in text
    part = not told.part or any(word in text for word in grammar.parts[told.part - 1])
    return named and facing == side and colour and style and part


def test_texts_say_what_they_are_said_to_say(grammar):
    rng = np.random.default_rng(3)
    unknown = len(grammar.things) + 1
    pairs = [grammar.caption_pair(rng) for _ in range(600)]
    for pair in pairs:
        assert pair[0].told == pair[1].told
        for reading in pair:
            (told,) = reading.told
            assert reading.ends == (len(reading.text),)
            assert told.kind == unknown or _holds(reading.text, grammar, told), reading
    told = [first.told[0] for first, _ in pairs]
    for name in ("colour", "side", "number", "part", "style"):
        assert 5 < sum(getattr(each, name) > 0 for each in told) < 400, name
    assert any(each.kind == unknown for each in told)
    for _ in range(200):
        prompt = grammar.prompt(rng)
        starts = (0, *prompt.ends)
        for start, end, said in zip(starts, prompt.ends, prompt.told, strict=False):
            assert _holds(prompt.text, grammar, said, prompt.text[start:end]), prompt
        assert not prompt.ground or prompt.text.endswith(grammar.grounds[prompt.ground - 1])
    assert NUMBERS[0] == "one"


def test_a_caption_in_company_is_about_what_it_names_first(grammar):
    """ "A corgi sitting in front of a cupcake" came out as a cupcake: no caption had ever named a second object."""
    rng = np.random.default_rng(4)
    texts = [grammar.in_company(rng, "a corgi.") for _ in range(200)]
    assert all(text.startswith("a corgi ") and len(text) > 12 for text in texts)
    assert len(set(texts)) > 190
    cakes = [text for text in texts if "cake" in text]
    assert cakes and not any(text.startswith("a corgi cake") for text in cakes)
    pairs = [grammar.caption_pair(rng) for _ in range(600)]
    others = [word for thing in grammar.things for word in thing.words if len(word) > 4]
    two = sum(sum(word in first.text for word in others) > 1 for first, _ in pairs)
    assert two > 60 and all(first.told == second.told for first, second in pairs)


def test_a_grammar_survives_its_file(grammar):
    again = Grammar.from_dict(json.loads(json.dumps(asdict(grammar))))
    assert again == grammar
    assert again.prompt(np.random.default_rng(5)) == grammar.prompt(np.random.default_rng(5))


def test_merges_are_those_of_counting_anew_each_time():
    """The fast learner keeps counts; the plain one counts all pairs again after every merge."""
    rng = np.random.default_rng(0)
    words = Counter({"".join(rng.choice(list("abc"), int(rng.integers(1, 9)))): int(n) for n in rng.integers(1, 9, 60)})
    spelled = {word: [*word[:-1], word[-1] + WORD_END] for word in words}
    plain = []
    for _ in range(40):
        pairs = Counter()
        for word, parts in spelled.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        plain.append(best)
        for word, parts in spelled.items():
            merged, i = [], 0
            while i < len(parts):
                step = 2 if tuple(parts[i : i + 2]) == best else 1
                merged.append("".join(parts[i : i + step]))
                i += step
            spelled[word] = merged
    assert _learn(words, 40) == plain


@pytest.fixture(scope="module")
def taught(recipe, wordnet_folder, teacher_at):
    """A recipe with a teacher."""
    run = replace(recipe.text.optimiser, steps=6, batch_size=16, learning_rate=2e-3)
    return replace(
        recipe,
        text=replace(
            recipe.text,
            vocabulary=2000,
            width=32,
            teacher=str(teacher_at),
            wordnet=str(wordnet_folder),
            nouns=12,
            words=run,
            optimiser=run,
        ),
    )


@pytest.fixture(scope="module")
def schooled(taught, world, tmp_path_factory):
    """A run whose text model is distilled."""
    run = tmp_path_factory.mktemp("schooled")
    stages.words(taught, run, world=world)
    stages.text(taught, run, world=world)
    return run


def test_stages_with_a_teacher(taught, recipe):
    assert stages.names(taught).index("words") == stages.names(taught).index("text") - 1
    assert "words" not in stages.names(recipe)
    assert "words" not in stages.names(replace(taught, start="mini"))


def test_hyponyms_are_learned_but_for_those_kept_to_test_with(schooled):
    things = {thing.words[0]: thing for thing in load_grammar(schooled / "text").things}
    assert set(things) == {"disc", "gem"}
    known = {"disc": ["plate"], "gem": ["jewel", "ruby"]}
    assert {name: sorted(thing.narrower) for name, thing in things.items()} == {
        name: [word for word in words if not held_out(word)] for name, words in known.items()
    }
    assert held_out("ruby") == (zlib.crc32(b"ruby") % 7 == 0)


def test_lessons_say_what_their_texts_mean(schooled, teacher):
    tokenizer, lessons = load_lessons(schooled / "words")
    assert tokenizer("gem").input_ids[1:-1] == [tokenizer.get_vocab()["gem</w>"]]
    assert lessons.pieces.shape == (len(tokenizer), teacher.width)
    texts = lessons.corpus.texts()
    likeness = functional.cosine_similarity(lessons.features, teacher.encode(texts))
    assert likeness.min() > 0.99
    drawn, features = lessons.draw(np.random.default_rng(0), 80)
    rows = {zlib.crc32(row.numpy().tobytes()): text for row, text in zip(lessons.features, texts, strict=True)}
    for text, feature in zip(drawn, features, strict=True):
        meant = rows[zlib.crc32(feature.numpy().tobytes())]
        head = re.sub(r"^(?:a|an) ", "", meant)[:3]
        assert head in text, (text, meant)


def test_the_first_weights_know_the_words_already(taught, schooled):
    """A random model's features have nothing to do with the teacher's."""
    tokenizer, lessons = load_lessons(schooled / "words")
    task = WordsTask(taught.text, tokenizer, lessons)
    nouns = [noun for noun in lessons.corpus.nouns if " " not in noun]
    rows = [lessons.corpus.nouns.index(noun) for noun in nouns]
    with torch.no_grad():
        found = task.head(task.text.pooled(nouns)) - task.head.bias
    target = lessons.features[rows] - task.head.bias
    table = functional.normalize(found, dim=1) @ functional.normalize(target, dim=1).T
    assert (table.argmax(1) == torch.arange(len(nouns))).float().mean() > 0.6


def test_a_text_model_goes_on_from_the_words_and_is_resumed_to_the_bit(taught, schooled, world, tmp_path):
    whole = load_checkpoint(schooled / "text" / CHECKPOINT)
    (tmp_path / "words").symlink_to(schooled / "words")
    stages.text(taught, tmp_path, stop_after=2, world=world)
    stages.text(taught, tmp_path, world=None)  # the grammar is written down: no world is needed any more
    again = load_checkpoint(tmp_path / "text" / CHECKPOINT)
    for name, module in whole["modules"].items():
        for key, value in module.items():
            assert torch.equal(value, again["modules"][name][key]), (name, key)
    assert not torch.equal(
        whole["modules"]["head"]["weight"],
        load_checkpoint(schooled / "words" / CHECKPOINT)["modules"]["head"]["weight"],
    )


def test_reading_is_learned_and_paraphrases_come_together(taught, schooled):
    config = replace(taught.text, optimiser=replace(taught.text.optimiser, batch_size=32, precision="fp32"))
    task = stages.text_task(replace(taught, text=config), schooled)
    adam = torch.optim.AdamW([p for module in task.modules.values() for p in module.parameters()], lr=5e-3)
    right = []
    for step in range(120):
        loss, numbers = task.loss(step)
        adam.zero_grad()
        loss.backward()
        adam.step()
        right.append(numbers["kinds_right"])
    assert np.mean(right[-20:]) > 0.85 > np.mean(right[:5])
    task.text.model.eval()
    with torch.no_grad():
        features = functional.normalize(task.text.pooled(["a gem", "the gem on the left", "a disc", "one disc"]), dim=1)
    likeness = features @ features.T
    assert min(likeness[0, 1], likeness[2, 3]) > likeness[:2, 2:].max() + 0.1


def test_texts_of_any_length_are_pooled_as_alone(schooled, taught):
    side: TextSide = stages.text_task(taught, schooled).text
    side.model.eval()
    texts = ["a gem", "two old red discs beside a ruby on a big plate", "", "disc", "a blue gem facing left"]
    with torch.no_grad():
        together = side.pooled(texts)
        alone = torch.cat([side.pooled([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_diffusion_reads_the_distilled_text_model(taught, schooled):
    parts = stages.text_task(taught, schooled)
    stages.freeze(parts, taught.text.optimiser, schooled / "text")
    assert not any(p.requires_grad for p in parts.text.model.parameters())


def test_a_run_of_before_there_were_teachers_goes_on_and_an_export_says_what_is_known(recipe, taught, world, tmp_path):
    before = recipe.to_dict()
    for name in ("teacher", "wordnet", "nouns", "likeness", "words"):
        del before["text"][name]
    check_same_recipe({"recipe": json.dumps(before), "step": 3}, recipe.to_dict(), tmp_path)
    with pytest.raises(CheckpointError, match=r"text\.teacher"):
        check_same_recipe({"recipe": json.dumps(before), "step": 3}, taught.to_dict(), tmp_path)
    assert known_to(recipe, world) == {"vocabulary": list(world.vocabulary())}
    assert known_to(taught, world) == {"familiar": {"captions": ["a disc", "a gem"], "likeness": taught.text.likeness}}
