"""What are generated labels worth? A small detector trained on composites of the world, a model's pictures, or both.

    instancediffusion judge train recipes/judge.toml --run runs/judge       # the filter; see docs/evaluation.md
    python benchmarks/labels_for_free.py --judge runs/judge/judge -o labels-for-free

OUTPUT gets the data sets (COCO), runs/ and results.md. What is there is not made or trained again. The detector
is an RT-DETR of `transformers` with 0.7 M parameters and random weights at the start. Every row takes the same number
of steps, and is scored on the same composites, whose layouts and backgrounds are in no training set: box AP of COCO, by
pycocotools.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from photo_composites import OBJECTS
from PIL import Image
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

from instancediffusion import InstanceDiffusionPipeline
from instancediffusion.checkpoints import weights_sha256
from instancediffusion.datasets import open_dataset, usable, write_dataset
from instancediffusion.evaluation.suites.coco import average_precision
from instancediffusion.evaluation.suites.suite import Scored
from instancediffusion.geometry import mask_box
from instancediffusion.pipeline.loading import local_model
from instancediffusion.projects import emoji_judge  # noqa: F401 - opens judges
from instancediffusion.projects.emoji_world import World, WorldSpec
from instancediffusion.projects.emoji_world.coco_export import export_coco
from instancediffusion.runs import write_atomic, write_json
from instancediffusion.synthesis import DatasetMaker, load_detector, pipeline_pictures, read_spec

SIDE_PX, BATCH = 64, 16
GROUNDS = ("meadow", "table", "room", "beach", "snow", "gray background", "forest", "sunset", "road")
UNSEEN_GROUNDS = ("desert", "sea", "hills", "autumn", "kitchen", "brick wall", "stage", "white background")
UNSEEN_SEED = 1_000_000
Labelled = tuple[Tensor, list[tuple[Tensor, Tensor]]]
"""Pictures (N, 3, S, S) in 0..1; of each the classes (k,) and boxes (k, 4), centre and sides as fractions."""


def world(grounds: Sequence[str], size: int = 128) -> World:
    """One or two large objects of ten classes that `mini` draws well, with one sprite each."""
    spec = WorldSpec(
        size=size, min_objects=1, max_objects=2, min_scale=0.4, max_scale=0.9,
        objects=OBJECTS, backgrounds=tuple(grounds), art_sets=("noto",), part_share=0.0, native_share=1.0,
    )  # fmt: skip
    return World.load(spec=spec)


def spec_of(pictures: int) -> dict[str, object]:
    """What the model is asked for: the same classes, sizes and backgrounds."""
    phrases = [world(GROUNDS).backgrounds[k].phrases[0] for k in range(len(GROUNDS))]
    one = {"size": [0.38, 0.75], "aspect": [0.85, 1.2]}
    return {
        "pictures": pictures,
        "size": [128, 128],
        "instances": [1, 2],
        "backgrounds": phrases,
        "prompts": ["{instances}, {background}"],
        "overlap_share": 0.35,
        "overlap": [0.1, 0.5],
        "min_visible": 0.45,
        "classes": [{"name": name, **one} for name in OBJECTS],
    }


def make(output: Path, pictures: int, steps: int, judge: Path) -> None:
    """Write the pictures of the model, unfiltered and filtered."""
    write_json(output / "spec.json", spec_of(pictures))
    folder = local_model("mini")
    pipeline = InstanceDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    settings = pipeline.default_settings.replace(num_inference_steps=steps)
    for name, detector in (("made", None), ("kept", load_detector(str(judge)))):
        if (output / name).exists():
            continue
        maker = DatasetMaker(
            read_spec(output / "spec.json"),
            output / "mini",
            pipeline_pictures(lambda: pipeline, settings),
            model={"weights": weights_sha256(folder), "dtype": "float32"},
            settings=settings,
            detector=detector,
            say=print,
        )
        print(maker.go())
        write_dataset(open_dataset(output / "mini"), output / name, "coco")


def read(folder: Path, most: int | None = None) -> Labelled:
    """A data set as tensors."""
    dataset = open_dataset(folder)
    pictures, labels = [], []
    for _, example in list(usable(dataset))[:most]:
        image = Image.fromarray(example.pixels()).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
        pictures.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255)
        instances = example.scene.instances
        corners = np.array([one.box.xyxy if one.box else mask_box(one.mask.array) for one in instances], np.float32)
        boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
        classes = [OBJECTS.index(example.category(k)) for k in range(len(instances))]
        labels.append((torch.tensor(classes), torch.from_numpy(boxes)))
    return torch.stack(pictures), labels


def joined(first: Labelled, second: Labelled) -> Labelled:
    """Two sets as one."""
    return torch.cat([first[0], second[0]]), first[1] + second[1]


def network() -> RTDetrForObjectDetection:
    """A small RT-DETR of random weights."""
    backbone = RTDetrResNetConfig(
        embedding_size=24, hidden_sizes=[24, 48, 64, 96], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[48, 64, 96], encoder_hidden_dim=64, d_model=64,
        encoder_ffn_dim=128, decoder_ffn_dim=128, decoder_in_channels=[64, 64, 64], num_queries=20, decoder_layers=2,
        num_denoising=20, encoder_attention_heads=4, decoder_attention_heads=4, num_labels=len(OBJECTS),
        freeze_backbone_batch_norms=False, hidden_expansion=0.5,
    )  # fmt: skip
    return RTDetrForObjectDetection(config)


def train(data: Labelled, steps: int, seed: int) -> RTDetrForObjectDetection:
    """Train a detector; pictures are mirrored, moved in brightness, and drawn with repetition."""
    torch.manual_seed(seed)
    model = network().train()
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        pictures, labels = [], []
        for number in torch.randint(len(data[0]), (BATCH,), generator=generator).tolist():
            classes, boxes = data[1][number]
            u = torch.rand(2, generator=generator)
            picture, boxes = data[0][number] * (0.8 + 0.4 * u[1]), boxes.clone()
            if u[0] < 0.5:
                picture, boxes[:, 0] = picture.flip(-1), 1 - boxes[:, 0]
            pictures.append(picture)
            labels.append({"class_labels": classes, "boxes": boxes})
        loss = model(pixel_values=torch.stack(pictures), labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
    return model.eval()


@torch.no_grad()
def detected(model: RTDetrForObjectDetection, pictures: Tensor) -> list[list[dict[str, object]]]:
    """The detections in pictures: label, box and score, the highest score first."""
    found = []
    for start in range(0, len(pictures), 50):
        output = model(pixel_values=pictures[start : start + 50])
        for logits, boxes in zip(output.logits.sigmoid(), output.pred_boxes, strict=True):
            all_ = [
                {**entry(label, box), "score": float(score)}
                for box, one in zip(boxes, logits, strict=True)
                for label, score in enumerate(one)
            ]
            found.append(sorted(all_, key=lambda one: -one["score"])[:100])
    return found


def scored(
    found: Sequence[Sequence[Mapping[str, object]]], labels: Sequence[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Box AP and AP50 of detections."""
    rows = []
    for number, (detections, (classes, boxes)) in enumerate(zip(found, labels, strict=True)):
        truth = [entry(label, box) for label, box in zip(classes, boxes, strict=True)]
        rows.append(Scored(number, "", {"size": [SIDE_PX, SIDE_PX], "truth": truth, "found": list(detections)}))
    values = average_precision(rows, "bbox", 0)[0]
    return {"ap": values["ap"], "ap50": values["ap50"]}


def entry(label: int | Tensor, box: Tensor) -> dict[str, object]:
    """A class and a box (4,), centre and sides as fractions, as the suite `coco` has them."""
    x, y, w, h = (box * SIDE_PX).tolist()
    return {"label": OBJECTS[int(label)], "box": [x - w / 2, y - h / 2, w, h]}


def main() -> None:
    """Make the sets, train, score, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", type=Path, required=True, help="The filter: the folder of a detector (judge).")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=360, help="By the model, before the filter.")
    parser.add_argument("--few", type=int, default=60, help="Composites, which stand for hand-labelled pictures.")
    parser.add_argument("--unseen", type=int, default=300)
    parser.add_argument("--draw-steps", type=int, default=12)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Processes may share them out.")
    options = parser.parse_args()
    output = options.output
    for name, grounds, count, first in (
        ("composites", GROUNDS, options.pictures, 0),
        ("unseen", UNSEEN_GROUNDS, options.unseen, UNSEEN_SEED),
    ):
        if not (output / name / "instances.json").exists():
            export_coco(world(grounds), output / name, count, first_seed=first)
    make(output, options.pictures, options.draw_steps, options.judge)
    few, made, kept = read(output / "composites", options.few), read(output / "made"), read(output / "kept")
    rows = {
        f"{options.few} composites": few,
        "mini, all": made,
        "mini, filtered": kept,
        f"{options.few} composites + mini, all": joined(few, made),
        f"{options.few} composites + mini, filtered": joined(few, kept),
        f"{options.pictures} composites": read(output / "composites"),
    }
    unseen = read(output / "unseen")
    for seed in options.seeds:
        for name, data in rows.items():
            path = output / "runs" / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}-{options.steps}.json"
            if not path.exists():
                start = time.process_time()
                done = scored(detected(train(data, options.steps, seed), unseen[0]), unseen[1])
                seconds = time.process_time() - start
                write_json(path, {"row": name, "seed": seed, "pictures": len(data[0]), "seconds": seconds, **done})
                print(path.name, done, flush=True)
    found = [json.loads(path.read_text()) for path in sorted((output / "runs").glob(f"*-{options.steps}.json"))]
    text = table([one for name in rows for one in found if one["row"] == name])
    write_atomic(output / "results.md", text)
    print(text)


def table(done: Sequence[Mapping[str, object]]) -> str:
    """Mean and range over the seeds."""
    lines = ["| trained on | pictures | seeds | AP | AP50 |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(str(one["row"]) for one in done):
        runs = [one for one in done if one["row"] == name]
        numbers = [
            f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            for values in ([float(str(one[kind])) for one in runs] for kind in ("ap", "ap50"))
        ]
        lines.append(f"| {name} | {runs[0]['pictures']} | {len(runs)} | {' | '.join(numbers)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
