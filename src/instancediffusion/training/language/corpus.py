"""What is distilled: texts about everyday objects and their attributes, each with the teacher's feature.

A phrase is distilled without the filler that the student sees around it, so the student learns what changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from instancediffusion.scene.english import listed, plural, with_article
from instancediffusion.training.language.teacher import Teacher
from instancediffusion.training.language.wordnet import WordNet

_RELATIONS = (
    *("beside", "in front of", "behind", "next to", "on", "under", "near", "with", "and", "above", "in", "of"),
    *("on top of", "holding", "covering", "between"),
)


@dataclass(frozen=True)
class Corpus:
    """Texts to distil.

    Attributes:
        nouns: singular and without article, those that matter most first.
        pairs: an adjective and a noun, singular and without article.
        sentences: anything else.
    """

    nouns: tuple[str, ...]
    pairs: tuple[str, ...]
    sentences: tuple[str, ...]

    def texts(self) -> list[str]:
        """What the teacher reads: nouns and pairs with an article, then sentences."""
        return [*map(with_article, self.nouns), *map(with_article, self.pairs), *self.sentences]


def common_nouns(wordnet: WordNet, teacher: Teacher, count: int) -> list[str]:
    """The visible nouns that are met most often: whole words of the teacher's vocabulary in its order, then the rest.

    The rest is sorted by how often WordNet's own texts have them, then by their number of words and letters.
    """

    def rarity(noun: str) -> tuple[int, int, int, int, str]:
        rank = teacher.rank.get(noun)
        if rank is not None:
            return 0, rank, 0, 0, noun
        return 1, -wordnet.counts.get(noun, 0), noun.count(" ") + noun.count("-"), len(noun), noun

    return sorted(wordnet.nouns(), key=rarity)[:count]


def common_adjectives(wordnet: WordNet, teacher: Teacher, count: int = 2_500) -> list[str]:
    """The adjectives that are met most often."""
    known = [word for word in wordnet.adjectives() if word in teacher.rank]
    return sorted(known, key=teacher.rank.__getitem__)[:count]


def build_corpus(
    wordnet: WordNet, teacher: Teacher, nouns: int, more: Mapping[str, Sequence[str]], seed: int = 0
) -> Corpus:
    """Make the texts.

    Args:
        wordnet: nouns, adjectives, glosses.
        teacher: says how common a word is.
        nouns: how many nouns there are.
        more: words that must be among them, by class, and their hyponyms.
        seed: of the random combinations.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    common, adjectives = common_nouns(wordnet, teacher, nouns), common_adjectives(wordnet, teacher)
    own = sorted({word for words in more.values() for word in words})
    single = list(dict.fromkeys([*own, *common]))
    # Frequent words are combined more often, as in a text.
    often = common[: nouns // 4] + own

    def pick(words: Sequence[str]) -> str:
        return words[int(len(words) * rng.random() ** 1.5)]

    paired = {f"{pick(adjectives)} {often[int(rng.integers(len(often)))]}" for _ in range(nouns // 2)}
    sentences = set()
    for _ in range(nouns // 4):
        first, second = (often[int(i)] for i in rng.integers(len(often), size=2))
        relation = _RELATIONS[int(rng.integers(len(_RELATIONS)))]
        if rng.random() < 0.3:
            first = f"{pick(adjectives)} {first}"
        sentences.add(f"{with_article(first)} {relation} {with_article(second)}")
    for noun in (often[int(i)] for i in rng.integers(len(often), size=nouns // 16)):
        sentences.add(listed(["two " + plural(noun), with_article(pick(often))]))
    glosses = {wordnet.senses[wordnet.of_word[noun][0]].gloss for noun in common[: nouns // 2]}
    sentences |= {gloss for gloss in glosses if 2 < len(gloss.split()) < 13 and "(" not in gloss}
    return Corpus(tuple(single), tuple(sorted(paired - set(single))), tuple(sorted(sentences)))
