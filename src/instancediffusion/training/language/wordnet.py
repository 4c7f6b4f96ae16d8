"""WordNet's nouns and adjectives, read from its database files (wndb(5WN); Fellbaum 1998).

Needed while a text model is trained, never afterwards. Debian's package `wordnet-base` puts the files where they are
looked for; any other copy of WordNet's `dict` folder will do.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instancediffusion.errors import SettingsError

FOLDERS = ("/usr/share/wordnet", "/usr/local/WordNet-3.0/dict")
"""Where distributions put the database."""

# Lexicographer files (lexnames(5WN)) of nouns that can be looked at, in the order in which a picture means them.
_VISIBLE = {5: "animal", 13: "food", 20: "plant", 6: "artifact", 17: "object", 8: "body", 18: "person", 27: "substance"}
_HYPONYM = ("~", "~i")
_MEANT = {"turtle": "animal", "cake": "food", "snowflake": "object", "rocket": "artifact"}


@dataclass(frozen=True)
class Sense:
    """A synset of nouns.

    Attributes:
        words: its lemmas in lower case, with spaces.
        domain: "animal", "food", ... for what can be seen, else "".
        gloss: what it means, without examples.
        narrower: keys of its hyponyms.
    """

    words: tuple[str, ...]
    domain: str
    gloss: str
    narrower: tuple[str, ...]


class WordNet:
    """The noun hierarchy, the adjectives, and how often a word was met.

    Args:
        folder: WordNet's database; None looks in the usual places.

    Raises:
        SettingsError: the files are not there.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = _found(folder)
        self.senses: dict[str, Sense] = {}
        self.of_word: dict[str, list[str]] = {}
        """Keys of a noun's senses, the most frequent first."""
        self.counts = dict(_counts(self.folder / "cntlist.rev"))
        for line in _lines(self.folder / "data.noun"):
            key, sense = _sense(line)
            self.senses[key] = sense
        for line in _lines(self.folder / "index.noun"):
            parts = line.split()
            self.of_word[parts[0].replace("_", " ")] = parts[-int(parts[2]) :]

    def nouns(self) -> list[str]:
        """Nouns that mean something visible in their most frequent sense, sorted; no names."""
        found = []
        for word, keys in self.of_word.items():
            first = self.senses[keys[0]]
            # The index is in lower case; a name shows by its capital in the synset.
            if first.domain and word in first.words and _plain(word):
                found.append(word)
        return sorted(found)

    def adjectives(self) -> list[str]:
        """Adjectives of one word, sorted."""
        words = (line.split(" ", 1)[0] for line in _lines(self.folder / "index.adj"))
        return sorted(word for word in words if word.isascii() and word.isalpha())

    def sense(self, word: str) -> str | None:
        """Key of the sense a picture means by a noun; None if there is none.

        The first sense that can be seen, but an animal rather than its meat or fur ("octopus"), a fruit rather than
        the plant it grows on ("banana"), and people and parts of bodies last ("tiger", "crown").
        """
        keys = [key for key in self.of_word.get(word, ()) if self.senses[key].domain]
        domains = [self.senses[key].domain for key in keys]
        meant = _MEANT.get(word)
        if meant in domains:
            return keys[domains.index(meant)]
        clear = [i for i, domain in enumerate(domains) if domain not in ("person", "body", "substance")]
        first = clear[0] if clear else 0
        if clear and domains[first] in ("food", "plant"):
            first = next((domains.index(d) for d in ("animal", "food", "plant") if d in domains), first)
        return keys[first] if keys else None

    def below(self, key: str, stop: Iterable[str] = ()) -> Iterator[tuple[int, str]]:
        """Walk a sense and all its hyponyms, nearest first, but for those under `stop`.

        Yields:
            Depth below `key` and key of the sense, each sense once.
        """
        visited, level, depth = {key, *stop}, [key], 0
        while level:
            yield from ((depth, each) for each in level)
            following = []
            for each in level:
                for narrower in self.senses[each].narrower:
                    if narrower not in visited:
                        visited.add(narrower)
                        following.append(narrower)
            level, depth = following, depth + 1


def hyponyms(wordnet: WordNet, classes: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Words that name something narrower than a class and nothing else.

    A word counts for the nearest class above it ("duck" is no "bird" where there are ducks). Left out are words whose
    most frequent sense lies elsewhere, words that stand under two classes, and words that are a class's own.

    Args:
        wordnet: the hierarchy.
        classes: the class's words by its name, the name first.

    Returns:
        Hyponyms and synonyms by class, the nearest first.
    """
    own = {word for words in classes.values() for word in words}
    roots: dict[str, str] = {}
    for name, words in classes.items():
        key = next((key for word in words if (key := wordnet.sense(word))), None)
        if key is not None:
            roots.setdefault(key, name)
    found: dict[str, dict[str, int]] = {name: {} for name in classes}
    owners: dict[str, set[str]] = defaultdict(set)
    for key, name in roots.items():
        for depth, each in wordnet.below(key, set(roots) - {key}):
            for word in wordnet.senses[each].words:
                if word not in own and _plain(word) and wordnet.of_word[word][0] == each:
                    found[name].setdefault(word, depth)
                    owners[word].add(name)
    return {
        name: [word for word in sorted(words, key=lambda w: (words[w], w)) if len(owners[word]) == 1]
        for name, words in found.items()
    }


def narrower_words(wordnet: WordNet, classes: Mapping[str, Sequence[str]], most: int = 60) -> dict[str, list[str]]:
    """The familiar hyponyms of each class: those that WordNet's own texts have, and those nearest to it.

    Args:
        wordnet: the hierarchy.
        classes: the class's words by its name.
        most: how many to keep of a class.
    """
    found = hyponyms(wordnet, classes)
    for words in found.values():
        rank = {word: number for number, word in enumerate(words)}
        words.sort(key=lambda word: (-min(wordnet.counts.get(word, 0), 1), word.count(" "), rank[word]))
        del words[most:]
    return found


def held_out(word: str) -> bool:
    """Whether a hyponym is kept from training, so that it can test what was learned: one in seven."""
    return zlib.crc32(word.encode()) % 7 == 0


def _plain(word: str) -> bool:
    return bool(re.fullmatch(r"[a-z]{2,}(?:[ -][a-z]{2,}){0,2}", word))


def _found(folder: str | Path | None) -> Path:
    tried = [Path(folder).expanduser()] if folder else [Path(each) for each in FOLDERS]
    for each in tried:
        if (each / "data.noun").is_file():
            return each
    raise SettingsError(
        f"WordNet: no data.noun in {' or '.join(map(str, tried))}; install the Debian package wordnet-base, or name "
        "the folder of its database (text.wordnet)"
    )


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.startswith("  "):  # the licence stands before the entries
                yield line


def _sense(line: str) -> tuple[str, Sense]:
    entry, _, gloss = line.partition(" | ")
    parts = entry.split()
    count = int(parts[3], 16)
    words = tuple(parts[4 + 2 * i].replace("_", " ") for i in range(count))
    pointers = parts[5 + 2 * count :]
    narrower = tuple(pointers[i + 1] for i in range(0, 4 * int(parts[4 + 2 * count]), 4) if pointers[i] in _HYPONYM)
    return parts[0], Sense(words, _VISIBLE.get(int(parts[1]), ""), gloss.split('; "')[0].strip(), narrower)


def _counts(path: Path) -> Iterator[tuple[str, int]]:
    total: dict[str, int] = defaultdict(int)
    for line in _lines(path):
        sense, _, times = line.split()
        word, _, rest = sense.partition("%")
        if rest.startswith("1:"):  # nouns
            total[word.replace("_", " ")] += int(times)
    yield from total.items()
