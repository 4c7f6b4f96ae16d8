"""Contact sheets of scored pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from instancediffusion.rendering import contact_sheet, render_overlay

from .evaluate import Judged
from .scores import SUCCESS, InstanceScore
from .seen import Picture

TILE_PX = 192
COLUMNS = 3


class Showcase:
    """Keeps the first and the worst pictures of a group as they are scored.

    Args:
        count: how many of each.
    """

    def __init__(self, count: int = 24) -> None:
        self.count = count
        self.first: list[Judged] = []
        self._worst: list[tuple[float, int, Judged]] = []
        self._seen = 0

    def add(self, judged: Judged) -> None:
        """Take in a scored picture."""
        if len(self.first) < self.count:
            self.first.append(judged)
        self._worst.append((badness(judged.scores), -self._seen, judged))
        self._worst = sorted(self._worst, key=lambda item: item[:2], reverse=True)[: self.count]
        self._seen += 1

    @property
    def worst(self) -> list[Judged]:
        """The worst pictures, the worst one first; among equals the earlier."""
        return [judged for _, _, judged in self._worst]


def badness(scores: Sequence[InstanceScore]) -> float:
    """Say how bad a picture is, for an order of pictures.

    It is the mean over its instances: 1 for a missed one; for others how far the location is off, plus a half for each
    wrong trait.
    """
    if not scores:
        return 0.0
    return float(np.mean([_badness(score) for score in scores]))


def judged_sheet(judged: Sequence[Judged], columns: int = COLUMNS) -> Image.Image:
    """Draw a contact sheet: the world's own picture, the scored one, and that with what was asked for; faults below."""
    return contact_sheet([_panel(one) for one in judged], columns, [fault_text(one) for one in judged])


def fault_text(judged: Judged) -> str:
    """Say in words what is not as asked for, or the prompt if all is."""
    faults = [text for score in judged.scores for text in _faults(score)]
    prompt = judged.truth.scene.prompt if judged.truth.scene else ""
    return f"{judged.truth.name}: {'; '.join(faults) or prompt}"


def _faults(score: InstanceScore) -> list[str]:
    name = score.name or "object"
    if score.missed:
        return [f"{name} {'merged' if score.merged else 'missed'}"]
    found = [f"{name} seen as {score.seen_as}"] if score.kind_right is False else []
    found += [f"{name}: {trait}" for trait in ("colour", "facing") if getattr(score, f"{trait}_right") is False]
    for field in ("box_iou", "mask_iou", "stroke_inside"):
        value = getattr(score, field)
        if value is not None and value < SUCCESS:
            found.append(f"{name}: {field.replace('_', ' ')} {value:.2f}")
    return found + ([f"{name}: beside its point"] if score.point_inside is False else [])


def _badness(score: InstanceScore) -> float:
    if score.missed:
        return 1.0
    locations = [score.box_iou, score.mask_iou, score.stroke_inside, score.point_inside]
    off = [1.0 - float(value) for value in locations if value is not None]
    wrong = [score.kind_right, score.colour_right, score.facing_right].count(False)
    return float(np.mean(off) if off else 0.0) + 0.5 * wrong


def _panel(judged: Judged) -> Image.Image:
    picture = _tile(judged.image)
    tiles = [] if judged.truth.composite is None else [_tile(judged.truth.composite)]
    tiles.append(picture)
    if judged.truth.scene is not None and judged.truth.scene.instances:
        tiles.append(render_overlay(judged.truth.scene, (TILE_PX, TILE_PX), background=picture, legend=False))
    panel = Image.new("RGB", (TILE_PX * len(tiles), TILE_PX))
    for number, tile in enumerate(tiles):
        panel.paste(tile, (number * TILE_PX, 0))
    return panel


def _tile(image: Picture) -> Image.Image:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return picture.convert("RGB").resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
