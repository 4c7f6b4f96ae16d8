"""Does an adapter that was trained on photograph-like pictures follow boxes? Its pictures of held-out layouts.

    python benchmarks/photo_composites.py photos
    instancediffusion data split photos parts --part train=0.9 --part val=0.1
    instancediffusion train recipes/adapter.toml --dataset parts/train --run run
    python benchmarks/adapter_scores.py parts run/export --judge runs/judge/judge -o scores

Rows: the set's own pictures (the ceiling), the base with the trained adapter, the same with its gates shut (which is
also the base with an untrained adapter, whose gates are zero), the base with the adapter that `mini` ships with. Boxes
and order are given. Two detectors, which get the pictures only: a small RT-DETR trained on `parts/train`
(labels_for_free.py), and that of the drawn world (judge), which was trained on no such picture. Box AP of COCO.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from labels_for_free import SIDE_PX, Labelled, detected, entry, read, scored, train
from photo_composites import OBJECTS
from PIL import Image

from instancediffusion import InstanceDiffusionPipeline, Scene
from instancediffusion.datasets import open_dataset, usable
from instancediffusion.projects import emoji_judge  # noqa: F401 - opens judges
from instancediffusion.rendering import contact_sheet
from instancediffusion.runs import write_atomic, write_json
from instancediffusion.synthesis import load_detector


def layouts(folder: Path, count: int) -> list[Scene]:
    """Boxes and order of the first pictures of a data set, without their masks."""
    found = []
    for _, example in list(usable(open_dataset(folder)))[:count]:
        scene = example.scene
        found.append(replace(scene, instances=tuple(replace(one, mask=None) for one in scene.instances)))
    return found


def draw(
    folder: Path, scenes: Sequence[Scene], adapter: str | None, steps: int, **settings: float
) -> list[Image.Image]:
    """Pictures of layouts; those that are there are read."""
    pipeline = None
    for start in range(0, len(scenes), 4):
        names = [folder / f"{number:03d}.png" for number in range(start, min(start + 4, len(scenes)))]
        if all(name.exists() for name in names):
            continue
        if pipeline is None:
            given = {} if adapter is None else {"adapter": adapter}
            pipeline = InstanceDiffusionPipeline.from_pretrained("mini", **given)
            pipeline.set_progress_bar_config(disable=True)
        batch = list(scenes[start : start + 4])
        noise = [torch.Generator().manual_seed(start + k) for k in range(len(batch))]
        made = pipeline(batch, generator=noise, num_inference_steps=steps, height=128, width=128, **settings).images
        for name, image in zip(names, made, strict=True):
            kept = io.BytesIO()
            image.save(kept, "PNG")
            write_atomic(name, kept.getvalue())
    return [Image.open(folder / f"{number:03d}.png").convert("RGB") for number in range(len(scenes))]


def tensors(images: Sequence[Image.Image], labels: Labelled) -> Labelled:
    """Pictures with the labels of their layouts."""
    small = [np.array(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)) for image in images]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255, labels[1][: len(images)]


def judged(judge: Path, images: Sequence[Image.Image], labels: Labelled) -> dict[str, float]:
    """Box AP of the judge's detections."""
    detector = load_detector(str(judge))
    found = []
    for start in range(0, len(images), 8):
        for detections in detector.detect(list(images[start : start + 8]), list(OBJECTS)):
            rows = []
            for one in detections:
                if one.label in OBJECTS:
                    x0, y0, x1, y1 = (float(v) for v in one.box)
                    box = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
                    rows.append({**entry(OBJECTS.index(one.label), box), "score": float(one.score)})
            found.append(rows)
    return scored(found, labels[1])


def main() -> None:
    """Sample, detect, write the table and a contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--draw-steps", type=int, default=12)
    parser.add_argument("--steps", type=int, default=500, help="Of the RT-DETR.")
    options = parser.parse_args()
    labels = read(options.parts / "val", options.count)
    scenes = layouts(options.parts / "val", options.count)
    pictures = [example.pixels() for _, example in list(usable(open_dataset(options.parts / "val")))[: options.count]]
    own = [Image.fromarray(one).resize((128, 128), Image.Resampling.BICUBIC) for one in pictures]
    trained, steps = str(options.adapter), options.draw_steps
    rows = {
        "the set's own pictures": own,
        "trained adapter": draw(options.output / "trained", scenes, trained, steps),
        "its gates shut, or untrained": draw(options.output / "shut", scenes, trained, steps, grounding_fraction=0.0),
        "the adapter of `mini`": draw(options.output / "shipped", scenes, None, steps),
    }
    grid = [image for k in range(min(12, len(scenes))) for image in (rows[name][k] for name in rows)]
    contact_sheet(grid, len(rows), [name for _ in range(len(grid) // len(rows)) for name in rows]).save(
        options.output / "sheet.png"
    )
    detector = train(read(options.parts / "train"), options.steps, 0)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, images in rows.items():
        data = tensors(images, labels)
        found[name] = {"RT-DETR": scored(detected(detector, data[0]), data[1])}
        if options.judge:
            found[name]["judge"] = judged(options.judge, images, labels)
        print(name, found[name], flush=True)
    write_json(options.output / "scores.json", found)
    detectors = list(next(iter(found.values())))
    lines = [
        "| | " + " | ".join(f"{one}: AP | AP50" for one in detectors) + " |",
        "|---" * (1 + 2 * len(detectors)) + "|",
    ]
    for name, values in found.items():
        numbers = [f"{values[one][kind]:.3f}" for one in detectors for kind in ("ap", "ap50")]
        lines.append(f"| {name} | {' | '.join(numbers)} |")
    write_atomic(options.output / "scores.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
