"""A trained evaluator (judge): detects objects in pictures; saved in and loaded from a folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from instancediffusion.errors import CheckpointError
from instancediffusion.evaluation.metrics import InstanceMetrics, Scores
from instancediffusion.evaluation.seen import Floats, Picture, Seen, as_rgb
from instancediffusion.evaluation.truth import truth_of_sample
from instancediffusion.projects.emoji_world import KINDS as CATALOGUE
from instancediffusion.projects.emoji_world import ObjectKind, SpriteBook, World, WorldSpec
from instancediffusion.runs import atomic_path, file_sha256, write_json
from instancediffusion.scene import KINDS

from .grouping import group_cells
from .judge_config import JudgeConfig
from .network import Answer, JudgeNetwork
from .objects import read_objects
from .sprite_order import SpriteOrder

CONFIG, WEIGHTS = "config.json", "model.safetensors"
BATCH = 8
CERTAIN = 0.5
_PAIRS = ("pair_px", "pair_widths")
"""Sizes of a network for the order of pairs that judges once had; it is left out."""


class Judge:
    """Detects the objects of a picture, with their location, colour and orientation.

    Args:
        network: the trained networks.
        card: facts about it (training, accuracy), JSON-like values.
        sha256: hash of its weights' file, if it has one.
        sprites: of the world whose pictures it looks at, to read the order of pairs; None takes the built-in one's when
            they are needed.
    """

    def __init__(
        self,
        network: JudgeNetwork,
        card: Mapping[str, Any] | None = None,
        sha256: str | None = None,
        sprites: SpriteBook | None = None,
    ) -> None:
        # The order of channels in memory decides roundings, so it is one, however the network came about.
        self.network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config, self.card, self.sha256 = network.config, dict(card or {}), sha256
        self._order = None if sprites is None else SpriteOrder(sprites)

    @property
    def kinds(self) -> tuple[ObjectKind, ...]:
        """The classes whose words it reads in captions: the world's, whether it has learned to detect them or not."""
        return CATALOGUE

    @classmethod
    def load(cls, folder: str | Path) -> Judge:
        """Open a saved judge.

        Raises:
            CheckpointError: the folder holds no judge, or a damaged one.
        """
        folder = Path(folder)
        try:
            values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            sizes, weights = dict(values["judge"]), load_file(folder / WEIGHTS)
            for name in _PAIRS:
                sizes.pop(name, None)
            network = JudgeNetwork(JudgeConfig.from_dict(sizes))
            network.load_state_dict({name: one for name, one in weights.items() if not name.startswith("pairs.")})
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{folder}: no judge there; train one with `instancediffusion judge train`"
            ) from error
        except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{folder}: a damaged judge, or none of ours ({error})") from error
        return cls(network, values.get("card"), file_sha256(folder / WEIGHTS))

    def save(self, folder: str | Path) -> None:
        """Write the judge into a folder, each file whole or not at all."""
        folder = Path(folder)
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file({name: value.contiguous() for name, value in self.network.state_dict().items()}, temporary)
        self.sha256 = file_sha256(folder / WEIGHTS)
        write_json(folder / CONFIG, {"judge": self.config.to_dict(), "card": self.card})

    def describe(self) -> dict[str, Any]:
        """Return JSON-like facts: parameters, hash, number of classes and colours, and its card."""
        parameters = sum(p.numel() for p in self.network.parameters())
        words = {"kinds": len(self.config.kinds), "colours": len(self.config.colours)}
        return {"parameters": parameters, "sha256": self.sha256, **words, **self.card}

    @torch.inference_mode()
    def look(self, images: Sequence[Picture]) -> list[Seen]:
        """Detect the objects of pictures, PIL or (H, W, 3) uint8, of any sizes; batching changes no result."""
        found: list[Seen] = []
        for start in range(0, len(images), BATCH):
            batch = [as_rgb(image) for image in images[start : start + BATCH]]
            pixels = torch.stack([cells_input(image, self.config.side_px) for image in batch])
            answer = self.network(pixels.contiguous(memory_format=torch.channels_last))
            boxes = [self._proposed(answer, row, image) for row, image in enumerate(batch)]
            objects = read_objects(self.network.reader, self.config, batch, boxes)
            found += [one.seen(answer.hidden[row].mean((1, 2)).numpy()) for row, one in enumerate(objects)]
        return found

    @torch.inference_mode()
    def read(self, images: Sequence[Picture], boxes: Sequence[Floats]) -> list[Seen]:
        """Classify and segment the objects in given boxes of pictures, also where the boxes overlap.

        The judge is given the boxes only, nothing of what was asked for there. Objects outside all boxes are missed.

        Args:
            images: PIL pictures or (H, W, 3) uint8, of any sizes.
            boxes: of each, (M, 4) x0 y0 x1 y1 fractions.

        Returns:
            Of each picture the objects in the boxes, in their order; boxes that hold no object are left out.
        """
        found: list[Seen] = []
        for image, some in zip(images, boxes, strict=True):
            given = [(np.asarray(box, np.float64), 1.0) for box in some]
            (objects,) = read_objects(self.network.reader, self.config, [as_rgb(image)], [given], told=True)
            found.append(objects.seen(None))
        return found

    def with_overlaps(self, image: Picture, seen: Seen) -> Seen:
        """Add what the overlap of every two detections shows whose boxes overlap; see `SpriteOrder`.

        Args:
            image: a PIL picture or (H, W, 3) uint8, of any size.
            seen: the detections in it, from `look` or `read`.

        Returns:
            The same detections, with their `overlaps`.

        Raises:
            ArtError: the sprites of the built-in world are not built.
        """
        if len(seen.instances) < 2:
            return seen
        if self._order is None:
            self._order = SpriteOrder(World.load(spec=WorldSpec(objects=self.config.kinds)).sprites)
        return dataclasses.replace(seen, overlaps=self._order.overlaps(as_rgb(image), seen.instances))

    def _proposed(self, answer: Answer, row: int, image: Image.Image) -> list[tuple[Floats, float]]:
        """Return box and confidence of each proposed object of a picture (a batch element)."""
        there = answer.there[row].softmax(0)[1]
        on = (there > CERTAIN).flatten()
        boxes = from_square(answer.box[row].flatten(1).T[on].double().clamp(0, 1).numpy(), image)
        trust = (there * answer.quality[row].sigmoid()).flatten()[on].double().clamp(min=1e-6).numpy()
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((middle > 0) & (middle < 1)).all(1)
        boxes, trust = boxes[inside].clip(0, 1), trust[inside]
        return [(group.box, group.trust) for group in group_cells(boxes, trust)]


def check_judge(judge: Judge, world: World, count: int, first_seed: int) -> Scores:
    """Measure a judge on composites: every colour, orientation and location counts as given."""
    metrics = InstanceMetrics()
    for start in range(0, count, BATCH):
        samples = [world.sample(first_seed + k) for k in range(start, min(count, start + BATCH))]
        for sample, detections in zip(samples, judge.look([sample.image for sample in samples]), strict=True):
            metrics.update(detections, truth_of_sample(sample, sample.to_scene(KINDS), everything=True))
    return metrics.compute()


def cells_input(image: Image.Image, side_px: int) -> Tensor:
    """Resize a picture for the detector: (3, S, S), -1..1; what it lacks of a square repeats its border.

    The detector was taught on squares: so objects keep their shape, and there is no edge that it could take for one.
    """
    if image.width != image.height:
        image = Image.fromarray(np.pad(np.asarray(image), (*_margins(image), (0, 0)), mode="edge"))
    if image.size != (side_px, side_px):
        image = image.resize((side_px, side_px), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def from_square(boxes: Floats, image: Image.Image) -> Floats:
    """Bring boxes (M, 4) from fractions of the square that `cells_input` makes of a picture to those of the picture."""
    (top, _), (left, _) = _margins(image)
    side = max(image.size)
    return (boxes * side - np.array([left, top] * 2)) / np.array([image.width, image.height] * 2)


def _margins(image: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels that a picture lacks of a square, above and below it, left and right of it."""
    down, across = max(image.size) - image.height, max(image.size) - image.width
    return (down // 2, down - down // 2), (across // 2, across - across // 2)


def colours_of(world: World) -> tuple[str, ...]:
    """Return the named colours of a world's sprites, each once."""
    drawings = [drawing for kind in world.kinds for drawing in kind.drawings]
    named = (colour for one in drawings for colour in (one.colour, *one.colours) if colour is not None)
    return tuple(dict.fromkeys(named))


def unknown_words(judge: Judge, world: World) -> list[str]:
    """List the names and colours of a world that a judge has not learned."""
    words = [kind.name for kind in world.kinds if kind.name not in judge.config.kinds]
    return words + [colour for colour in colours_of(world) if colour not in judge.config.colours]
