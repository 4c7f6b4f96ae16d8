"""Run-length coding of bitmaps, as COCO writes it.

A bitmap is read column by column; runs of unset and set pixels alternate, unset first. The compressed string stores
each run (from the fourth on: its difference from the run two before) in groups of five bits, low group first, one
character (code 48 and up) for each group (pycocotools, `common/maskApi.c`).

Reading never trusts its input: work and memory are bounded by the bitmap's own size and that of the input.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

_CHUNK = 1 << 18
_MAX_GROUPS = 7  # 35 bits: more than any run length or difference of two that fits the largest canvas
_LOW, _SIGN, _MORE, _BASE = 0x1F, 0x10, 0x20, 48

Counts = str | Sequence[int]
"""Compressed string, or plain run lengths."""


def rle_encode(mask: npt.NDArray[np.bool_]) -> str:
    """Return the compressed COCO string of a bitmap.

    Args:
        mask: (height, width) array; anything not zero is set.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"a bitmap has two axes and at least one pixel, this has shape {mask.shape}")
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0] if not flat[0] else [0, 0], edges, [flat.size]])
    return compress_runs(np.diff(bounds))


def compress_runs(runs: npt.NDArray[np.int64]) -> str:
    """Return the compressed string of plain run lengths (k,), each not negative."""
    values = np.asarray(runs, dtype=np.int64).copy()
    values[3:] -= np.asarray(runs, dtype=np.int64)[1:-2]
    groups, more = [], np.ones(values.shape, dtype=bool)
    while more.any():
        group = values & _LOW
        values >>= 5
        active = more.copy()
        more = active & np.where(group & _SIGN, values != -1, values != 0)
        groups.append(np.where(active, group + _BASE + np.where(more, _MORE, 0), 0))
    codes = np.stack(groups, axis=1).ravel() if groups else np.zeros(0, dtype=np.int64)
    return codes[codes > 0].astype(np.uint8).tobytes().decode("ascii")


def rle_decode(counts: Counts, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the bitmap of a run-length code.

    Args:
        counts: compressed string or plain run lengths.
        size: (height, width) in pixels.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: the code is damaged or does not fill exactly `height * width` pixels.
    """
    height, width = size
    _check_fill(counts, size)  # before the bitmap exists: a code that does not fit costs no memory
    flat = np.zeros(height * width, dtype=bool)
    position, value = 0, False
    for runs in _run_chunks(counts, height * width):
        values = (np.arange(len(runs)) % 2 == 1) ^ value
        end = position + int(runs.sum())
        flat[position:end] = np.repeat(values, runs)
        position, value = end, value ^ bool(len(runs) % 2)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def rle_area(counts: Counts, size: tuple[int, int]) -> int:
    """Return the number of set pixels without building the bitmap; raises `ValueError` as `rle_decode` does."""
    return _check_fill(counts, size)


def rle_runs(counts: Counts, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the plain run lengths (k,), unset first; raises `ValueError` as `rle_decode` does."""
    _check_fill(counts, size)
    return np.concatenate(list(_run_chunks(counts, size[0] * size[1])))


def _check_fill(counts: Counts, size: tuple[int, int]) -> int:
    """Return the set pixels of a code that fills the canvas exactly, else raise."""
    pixels = size[0] * size[1]
    total, area, phase = 0, 0, 0
    for runs in _run_chunks(counts, pixels):
        total += int(runs.sum())
        area += int(runs[1 - phase :: 2].sum())
        phase = (phase + len(runs)) % 2
        if total > pixels:
            break
    if total != pixels:
        more = "more than " if total > pixels else ""
        raise ValueError(f"the run lengths add up to {more}{min(total, pixels)} pixels, not to {size[0]} x {size[1]}")
    return area


def _run_chunks(counts: Counts, pixels: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield run lengths in blocks, each checked against the canvas; stops with `ValueError` at the first bad one."""
    blocks = _string_chunks(counts, pixels) if isinstance(counts, str) else _list_chunks(counts, pixels)
    seen = 0
    for runs in blocks:
        seen += len(runs)
        if seen > pixels + 2:
            raise ValueError(f"there are more runs than the canvas has pixels ({pixels})")
        if len(runs) and (int(runs.min()) < 0 or int(runs.max()) > pixels):
            raise ValueError(f"a run length lies outside 0..{pixels}")
        yield runs


def _list_chunks(counts: Sequence[int], pixels: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, min(len(counts), pixels + 3), _CHUNK):
        block = counts[start : start + _CHUNK]
        if any(type(run) is not int or not 0 <= run <= pixels for run in block):
            raise ValueError(f"a run length is not an integer in 0..{pixels}")
        yield np.array(block, dtype=np.int64)


def _string_chunks(counts: str, pixels: int) -> Iterator[npt.NDArray[np.int64]]:
    if len(counts) > _MAX_GROUPS * (pixels + 2):
        raise ValueError(f"the string is too long for a canvas of {pixels} pixels")
    first, carry = 0, [0, 0]  # index of the block's first run; the last run of either parity
    for start, stop in _number_blocks(counts):
        try:
            codes = np.frombuffer(counts[start:stop].encode("ascii"), dtype=np.uint8).astype(np.int64) - _BASE
        except UnicodeEncodeError:
            raise ValueError("the string holds a character that the code does not use") from None
        if ((codes < 0) | (codes > 63)).any():
            raise ValueError("the string holds a character that the code does not use")
        runs = _join_groups(codes)
        for parity in (0, 1):
            # Runs 0, 1 and 2 are stored as they are; run 2 starts the even chain anew.
            begin = (parity - first) % 2
            if first == 0 and parity == 0:
                begin, carry[0] = 2, int(runs[0]) if len(runs) else 0
            chain = runs[begin::2]
            if len(chain):
                base = 0 if first == 0 else carry[parity]
                if first and first + begin == 2:
                    base = 0
                runs[begin::2] = np.cumsum(chain) + base
                carry[parity] = int(runs[begin::2][-1])
        first += len(runs)
        yield runs


def _number_blocks(counts: str) -> Iterator[tuple[int, int]]:
    """Yield slices of about `_CHUNK` characters that end where a number ends."""
    start = 0
    while start < len(counts):
        stop = min(start + _CHUNK, len(counts))
        limit = stop + _MAX_GROUPS
        while stop < len(counts) and stop < limit and ord(counts[stop - 1]) - _BASE & _MORE:
            stop += 1
        yield start, stop
        start = stop


def _join_groups(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Put five-bit groups (k,) together into signed numbers."""
    ends = np.flatnonzero(codes & _MORE == 0)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError("the string ends in the middle of a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if int(lengths.max()) > _MAX_GROUPS:
        raise ValueError("the string holds a number that no canvas needs")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers: npt.NDArray[np.int64] = np.add.reduceat((codes & _LOW) << (5 * place), starts)
    return np.where(codes[ends] & _SIGN, numbers - (np.int64(1) << (5 * lengths)), numbers)
