"""A `CLIPTokenizer` with a vocabulary of its own, learned from the world's texts.

Byte-pair encoding (Sennrich et al. 2016) on bytes in CLIP's layout: the 256 bytes, the 256 bytes at a word's end, one
entry for each merge, the two marks. Any text can be encoded; words of the world become single tokens.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

from tokenizers import Regex, pre_tokenizers
from transformers import CLIPTokenizer

from instancediffusion.errors import SettingsError

WORD_END = "</w>"
MARKS = ("<|startoftext|>", "<|endoftext|>")
# What the tokenizer class itself cuts text with: letters, single digits, runs of other signs, English clitics.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(texts: Iterable[str] | Mapping[str, int], *, vocabulary: int, length: int) -> CLIPTokenizer:
    """Learn a vocabulary.

    Args:
        texts: the corpus, or texts with how often each occurs; their order does not matter.
        vocabulary: largest number of entries; fewer are made when every word has become one.
        length: tokens of a text, marks included; longer texts are cut.

    Raises:
        SettingsError: the vocabulary has no room for the bytes and the marks.
    """
    alphabet = _byte_letters()
    base = [*alphabet, *(letter + WORD_END for letter in alphabet)]
    room = vocabulary - len(base) - len(MARKS)
    if room < 0:
        raise SettingsError(f"vocabulary = {vocabulary}: expected at least {len(base) + len(MARKS)}")
    merges = _learn(_words(texts), room)
    entries = [*base, *(first + second for first, second in merges), *MARKS]
    if len(set(entries)) != len(entries):  # two ways to build one entry; keep the first
        entries = list(dict.fromkeys(entries))
    tokens = {entry: number for number, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=tokens, merges=merges, model_max_length=length)


def _byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes, in the order of the bytes as CLIP lists them."""
    letters: list[str] = sorted(pre_tokenizers.ByteLevel.alphabet())
    return letters


def _words(texts: Iterable[str] | Mapping[str, int]) -> Counter[str]:
    """Count the words as the tokenizer will see them: lower case, bytes as letters."""
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    texts_seen = Counter(texts)
    words: Counter[str] = Counter()
    for text, times in texts_seen.items():
        for word, _ in split.pre_tokenize_str(text.lower()):
            words[word] += times
    return words


def _learn(words: Counter[str], room: int) -> list[tuple[str, str]]:
    """Merge the most frequent pair, again and again; ties go to the pair that sorts first."""
    spelled = {word: [*word[:-1], word[-1] + WORD_END] for word in words}
    pairs: Counter[tuple[str, str]] = Counter()
    holders: dict[tuple[str, str], set[str]] = defaultdict(set)
    for word, parts in spelled.items():
        for pair in pairwise(parts):
            pairs[pair] += words[word]
            holders[pair].add(word)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapify(queue)
    merges: list[tuple[str, str]] = []
    while queue and len(merges) < room:
        count, best = heappop(queue)
        if pairs[best] != -count or not count:
            continue  # its count has changed since, and stands elsewhere in the queue
        merges.append(best)
        changed = set()
        for word in holders.pop(best):
            before, after = spelled[word], _merged(spelled[word], best)
            for parts, sign in ((before, -1), (after, 1)):
                for pair in pairwise(parts):
                    pairs[pair] += sign * words[word]
                    changed.add(pair)
                    if sign > 0:
                        holders[pair].add(word)
            spelled[word] = after
        for pair in changed:
            heappush(queue, (-pairs[pair], pair))
    return merges


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(parts):
        if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out
