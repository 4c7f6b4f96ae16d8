"""Throughput and memory of data sets: writing, reading, making training shards, collating.

    python benchmarks/datasets.py                        # every format, 1,000 and 10,000 pictures of 64 x 64 pixels
    python benchmarks/datasets.py --formats coco webdataset --side 512 --numbers 1000

Each number is measured in a process of its own, whose largest resident memory it prints beside what the process had
before it began: what is kept for each entry shows as the difference between the numbers of entries.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from instancediffusion import Box, Instance, Mask, Scene
from instancediffusion.data import SceneCache, collate
from instancediffusion.datasets import FORMATS, LazyDataset, open_dataset, usable, write_dataset
from instancediffusion.datasets.example import Example
from instancediffusion.training.dataset_scenes import read_scenes
from instancediffusion.training.sections import DatasetConfig

BATCH = 16


def examples(count: int, side: int) -> LazyDataset[int]:
    """Pictures of three objects each, made as they are asked for."""

    def read(_: Any, number: int) -> Example:
        rng = np.random.default_rng(number)
        pixels = np.repeat(rng.integers(0, 255, (side, side, 1), dtype=np.uint8), 3, axis=2)
        instances = []
        for rank, corner in enumerate(rng.uniform(0.05, 0.5, (3, 2))):
            bitmap = np.zeros((side, side), bool)
            x, y = (int(v * side) for v in corner)
            bitmap[y : y + side // 3, x : x + side // 3] = True
            mask = Mask.from_array(bitmap)
            box = Box(x / side, y / side, (x + side // 3) / side, (y + side // 3) / side)
            instances.append(Instance("a cat", box=box, mask=mask, z_order=rank))
        scene = Scene("three cats", tuple(instances), width=side, height=side)
        return Example(scene, pixels, f"{number:06d}.png", number + 1, ("cat",) * 3)

    return LazyDataset("made here", range(count), read, {1: "cat"})


def write(folder: Path, name: str, count: int, side: int) -> None:
    """Write the data set in a format."""
    write_dataset(examples(count, side), folder / name, name)


def read(folder: Path, name: str, count: int, side: int) -> None:  # noqa: ARG001
    """Read every entry and its picture."""
    for _, example in usable(open_dataset(folder / name)):
        example.pixels()


def shards(folder: Path, name: str, count: int, side: int) -> None:  # noqa: ARG001
    """Make what training reads."""
    sizes = ((side, side),)
    read_scenes(DatasetConfig(path=str(folder / name), sizes=sizes, max_instances=4), folder / f"{name}-scenes")


def batches(folder: Path, name: str, count: int, side: int) -> None:  # noqa: ARG001
    """Collate batches of all scenes."""
    cache, generator = SceneCache(folder / f"{name}-scenes"), torch.Generator().manual_seed(0)
    for start in range(0, len(cache), BATCH):
        rows = list(range(start, min(start + BATCH, len(cache))))
        collate(cache, rows, generator)
        cache.rows("images", rows)


WORK = {"write": write, "read": read, "shards": shards, "batches": batches}


def measured(work: Any, *arguments: Any) -> tuple[float, float, float]:
    """Seconds, and resident memory in MB before and at most, of some work in a process of its own."""
    ours, theirs = multiprocessing.Pipe()

    def run() -> None:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        work(*arguments)
        seconds = time.perf_counter() - start
        theirs.send((seconds, before / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    if not ours.poll():
        raise SystemExit(f"{work.__name__} failed, see above")
    found: tuple[float, float, float] = ours.recv()
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--numbers", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK), help="Each needs those before it.")
    options = parser.parse_args()
    print("| format | pictures | work | pictures/s | memory before, MB | largest, MB |\n|---|---|---|---|---|---|")
    for name in options.formats:
        for count in options.numbers:
            with tempfile.TemporaryDirectory() as folder:
                for work in options.work:
                    seconds, before, most = measured(WORK[work], Path(folder), name, count, options.side)
                    columns = [
                        name,
                        f"{count:,}",
                        work,
                        f"{count / seconds:,.0f}",
                        f"{before:.0f}",
                        f"{most:.0f}",
                    ]
                    print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
