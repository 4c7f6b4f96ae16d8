"""What a folder of many results costs: a rerun with nothing to do, a few more, two writers at a time.

    python benchmarks/run_store.py                       # 10,000 pictures
    python benchmarks/run_store.py --number 1000 --only annotate

For `generate`, `evaluate`, `data annotate` and `dataset make`, without any model: what makes pictures and labels here
returns at once, so that all that is measured is the run store, the scenes and the files.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from instancediffusion import Box, Instance, Scene
from instancediffusion.annotation import AnnotationSettings, Detection, Stages, Target, annotate_dataset, open_pictures
from instancediffusion.evaluation.gallery import CHUNK, Gallery, Made
from instancediffusion.pipeline import GenerationOutput, GenerationSettings
from instancediffusion.pipeline.picture_folder import Picture, PictureFolder, generate_pictures
from instancediffusion.runs import RunDirectory
from instancediffusion.synthesis import ClassSpec, DatasetMaker, DatasetSpec

SIDE = 32
SETTINGS = GenerationSettings(num_inference_steps=1)
BLANK = Image.fromarray(np.full((SIDE, SIDE, 3), 128, np.uint8))
SCENE = Scene("a cat", (Instance("a cat", box=Box(0.2, 0.2, 0.8, 0.8)),), SIDE, SIDE)


def drawn(scenes: Sequence[Scene], seeds: Sequence[int]) -> GenerationOutput:
    """Stands in for a pipeline."""
    images = [BLANK] * (len(scenes) * len(seeds))
    repeated = tuple(scene for scene in scenes for _ in seeds)
    return GenerationOutput(
        images, None, torch.zeros(len(repeated), 1), tuple(seeds) * len(scenes), repeated, SETTINGS, {}, 0.0
    )


def generate(folder: Path, first: int, last: int) -> int:
    """Make what is missing of some pictures; returns how many that were."""
    run = PictureFolder(folder / "made", {"weights": "none"}, SETTINGS)
    pictures = [Picture("scene", SCENE, seed) for seed in range(first, last)]
    pending, _ = run.pending(pictures)
    generate_pictures(drawn, run, pending, batch_size=8, record={}, written=lambda _: None)
    return len(pending)


def evaluate(folder: Path, first: int, last: int) -> int:
    """The same of a gallery, whose unit is a chunk."""
    gallery = Gallery(folder / "made", {"weights": "none"})
    missing = [chunk for chunk in gallery.missing("box", last) if chunk.start >= first]
    for chunk in missing:
        gallery.put("box", chunk, Made([BLANK] * len(chunk), 0.0, []))
    gallery.summary()
    return sum(map(len, missing))


class Finder:
    """Finds a cat in every picture."""

    pin = {"model": "none", "revision": "1"}  # noqa: RUF012

    def detect(self, pictures: Sequence[Any], tags: Sequence[Sequence[str]]) -> list[list[Detection]]:  # noqa: ARG002
        """See `Stages`."""
        return [[Detection(names[0], 0.9, (4, 4, 20, 20))] for names in tags]


def annotate(folder: Path, first: int, last: int) -> int:  # noqa: ARG001
    """The same of annotations; pictures are there beforehand."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    for number in range(last):
        if not (source / f"{number:06d}.png").exists():
            BLANK.save(source / f"{number:06d}.png")
    stages, settings = Stages(detector=Finder()), AnnotationSettings(tags=("cat",))
    start = time.perf_counter()
    done = annotate_dataset(open_pictures(source), Target(folder / "made"), settings, stages.pins, lambda: stages)
    print(f"  annotate_dataset alone {time.perf_counter() - start:.2f} s")
    return done.annotated


def make(folder: Path, first: int, last: int) -> int:  # noqa: ARG001
    """The same of a data set made from a spec."""
    counted: list[int] = []

    def pictures(run: PictureFolder, asked: Sequence[Picture]) -> list[tuple[Picture, Exception]]:
        counted.append(len(asked))
        for picture in asked:
            run.put(picture, drawn([picture.scene], [picture.seed]), 0, {})
        return []

    spec = DatasetSpec(last, (ClassSpec("cat"),), size=(SIDE, SIDE))
    DatasetMaker(spec, folder / "made", pictures, model={"weights": "none"}, settings=SETTINGS).go()
    return sum(counted)


WORK: dict[str, Callable[[Path, int, int], int]] = {
    "generate": generate,
    "evaluate": evaluate,
    "annotate": annotate,
    "make": make,
}


def timed(what: str, work: Callable[[Path, int, int], int], *arguments: Any) -> None:
    """Do some work and print the time it took."""
    start, busy = time.perf_counter(), time.process_time()
    count = work(*arguments)
    print(
        f"  {what}: {count} made, {time.perf_counter() - start:.2f} s, {time.process_time() - busy:.2f} s of CPU",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--only", choices=list(WORK), nargs="+", default=list(WORK))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    more = CHUNK if CHUNK > 8 else 8
    for name in options.only:
        work, count = WORK[name], options.number
        few = more if name == "evaluate" else 8
        print(name)
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            (folder / "empty").mkdir()
            timed(f"{few} into an empty folder", work, folder / "empty", 0, few)
            (folder / "full").mkdir()
            timed(f"{count:,} into an empty folder", work, folder / "full", 0, count)
            timed("again, nothing to do", work, folder / "full", 0, count)
            timed(f"{few} more", work, folder / "full", count if name == "generate" else 0, count + few)
    print("two writers of 200 items each, side by side")
    with tempfile.TemporaryDirectory() as text:
        both = [multiprocessing.get_context("fork").Process(target=put, args=(text, w)) for w in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        print(f"  {len(RunDirectory(text, 'generate').items())} items")


def put(folder: str, writer: int) -> None:
    """Put 200 items."""
    run = RunDirectory(folder, "generate")
    for number in range(200):
        run.put(f"{writer}-{number}", "1", {f"{writer}-{number}.txt": "x"})


if __name__ == "__main__":
    main()
