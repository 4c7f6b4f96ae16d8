"""What the stages "words" and "text" are made from: made once, kept in the run's folder, read ever after."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from transformers import CLIPTokenizer

from instancediffusion.data.drawn_world import World
from instancediffusion.errors import SettingsError
from instancediffusion.runs import atomic_path
from instancediffusion.training.config import TextConfig
from instancediffusion.training.language.corpus import build_corpus, common_adjectives, common_nouns
from instancediffusion.training.language.distilled import read_pieces
from instancediffusion.training.language.filler import FILLERS
from instancediffusion.training.language.grammar import Grammar
from instancediffusion.training.language.lessons import Lessons
from instancediffusion.training.language.teacher import Teacher, teacher_folder
from instancediffusion.training.language.wordnet import WordNet, held_out, narrower_words
from instancediffusion.training.tokenizer import train_tokenizer

TOKENIZER, LESSONS, GRAMMAR = "tokenizer", "lessons.safetensors", "grammar.json"


def prepare_grammar(config: TextConfig, open_world: Callable[[], World], folder: Path) -> None:
    """Write down how texts may name the world's classes, hyponyms included, unless it was done before.

    Raises:
        SettingsError: WordNet is missing.
    """
    path = folder / GRAMMAR
    if not path.exists():
        world = open_world()
        narrower = narrower_words(WordNet(config.wordnet), {kind.name: kind.nouns for kind in world.kinds})
        learned = {name: [word for word in words if not held_out(word)] for name, words in narrower.items()}
        grammar = Grammar.of(world.kinds, learned, world.backgrounds)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(grammar), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_grammar(folder: Path) -> Grammar:
    """Read what `prepare_grammar` wrote.

    Raises:
        SettingsError: nothing was written.
    """
    return Grammar.from_dict(json.loads(_there(folder / GRAMMAR, "text").read_text("utf-8")))


def prepare_lessons(config: TextConfig, open_world: Callable[[], World], folder: Path) -> None:
    """Make the vocabulary and run the teacher on all texts, unless it was done before.

    Raises:
        SettingsError: WordNet or the teacher is missing.
    """
    held, path = folder / TOKENIZER, folder / LESSONS
    if not path.exists():
        world = open_world()
        wordnet, teacher = WordNet(config.wordnet), Teacher(teacher_folder(config.teacher))
        nouns = {kind.name: kind.nouns for kind in world.kinds}
        more = {name: (*nouns[name], *words) for name, words in narrower_words(wordnet, nouns).items()}
        own = [*Grammar.of(world.kinds, {}, world.backgrounds).words(), *FILLERS]
        own += [word for words in more.values() for word in words if wordnet.counts.get(word)]
        counts = word_counts(
            [*common_nouns(wordnet, teacher, config.nouns), *common_adjectives(wordnet, teacher)], own, teacher.rank
        )
        tokenizer = train_tokenizer(counts, vocabulary=config.vocabulary, length=config.length)
        tokenizer.save_pretrained(held)
        corpus = build_corpus(wordnet, teacher, config.nouns, more)
        # Written last: a folder that has it is whole.
        Lessons(corpus, teacher.encode(corpus.texts()), read_pieces(tokenizer, teacher)).save(path)


def load_lessons(folder: Path) -> tuple[CLIPTokenizer, Lessons]:
    """Read what `prepare_lessons` made.

    Raises:
        SettingsError: nothing was made.
    """
    lessons = Lessons.load(_there(folder / LESSONS, "words"))
    return CLIPTokenizer.from_pretrained(folder / TOKENIZER), lessons


def _there(path: Path, stage: str) -> Path:
    if not path.is_file():
        raise SettingsError(f"{path}: not there; run the stage {stage} first")
    return path


_COMMON, _FUNCTION_WORDS = 5_000, 200


def word_counts(known: Iterable[str], own: Iterable[str], rank: dict[str, int]) -> dict[str, int]:
    """How often the tokenizer should think words occur.

    As in a text, but flatter, and the words of the world and of the filler first: these are to be single tokens.

    Args:
        known: nouns and adjectives.
        own: phrases of the world.
        rank: of words by their frequency.
    """
    single = {word for word in known if word.isalpha()}
    common = sorted((word for word in single if word in rank), key=rank.__getitem__)[:_COMMON]
    counts = dict.fromkeys(sorted(single), 1)
    counts |= {word: 3 + int(60.0 / (1.0 + number) ** 0.25) for number, word in enumerate(common)}
    function_words = sorted(rank, key=rank.__getitem__)[:_FUNCTION_WORDS]
    whole = {word for phrase in own for word in phrase.replace("-", " ").split()}
    return {**counts, **dict.fromkeys((*function_words, *sorted(whole)), 100)}
