"""The ablation: what a model generates without each of its parts, and with some of them only.

Layouts of the suite `flip` are generated in both orders by every row. A part is switched off in the weights
(`model_parts`) or by a setting; nothing is trained again, so a row says what this model uses, not what another could do
without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.choices import MERGE_RULES
from instancediffusion.errors import SettingsError
from instancediffusion.evaluation import PictureJudge, Seen
from instancediffusion.evaluation.orders import Row
from instancediffusion.evaluation.seen import Picture
from instancediffusion.presets import PUBLISHED_INFERENCE

from .cells import Cell
from .compared import ALONE
from .model_parts import PARTS, lacking, switched_off
from .pictures import claim, open_picture, picture_path, save_picture
from .seen_rows import measure_seen, seen_for_order

JUDGED_TOGETHER = 8
COMPOSITES, OTHERS = "composites", "others"

OWN_SEED = 1_000_003
"""Added to the seed of the second order where each request has a seed of its own."""


@dataclass(frozen=True)
class Ablation:
    """One row of the ablation.

    Attributes:
        title: for the report.
        off: parts that are switched off, of `PARTS`.
        values: fields of `GenerationSettings` in place of the model's own.
        order: whether the depth order is given.
        own_seeds: sample both orders of a layout from noise of their own.
    """

    title: str
    off: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    order: bool = True
    own_seeds: bool = False


WHOLE = "whole"
_TOKENS = tuple(name for name in PARTS if name.endswith("_tokens"))
_OURS = ("relative_values", "order_embedding")

ROWS: dict[str, Ablation] = {
    WHOLE: Ablation("everything, the model's own settings"),
    "no_gates": Ablation("without gated attention and feed-forward", ("attention", "feed_forward")),
    "no_attention": Ablation("without gated attention", ("attention",)),
    "no_feed_forward": Ablation("without the gated feed-forward", ("feed_forward",)),
    "no_relative_values": Ablation("without box-relative values", ("relative_values",)),
    "no_scaleu": Ablation("without ScaleU", ("scaleu",)),
    "no_tokens": Ablation("without any token", _TOKENS),
    **{f"no_{name}": Ablation(f"without {PARTS[name].title}", (name,)) for name in _TOKENS},
    **{
        f"only_{name}": Ablation(f"{PARTS[name].title} only", tuple(other for other in _TOKENS if other != name))
        for name in _TOKENS
    },
    **{
        f"mask_{rule}": Ablation(title, values={"instance_mask": rule})
        for rule, title in (
            ("none", "no attention mask"),
            ("grounding", "boolean mask on the tokens: no visibility"),
            ("full", "boolean mask on all: no visibility"),
            ("visibility", "visibility in the attention"),
        )
    },
    "order_in_visibility": Ablation(
        "order given to visibility only", ("order_embedding",), {"instance_mask": "visibility"}
    ),
    "order_in_tokens": Ablation("order given to the tokens only", values={"instance_mask": "grounding"}),
    "order_nowhere": Ablation(
        "order in neither tokens nor visibility, a seed for each request",
        ("order_embedding",),
        {"instance_mask": "grounding"},
        own_seeds=True,
    ),
    "order_withheld": Ablation("order not in the request, a seed for each request", order=False, own_seeds=True),
    "order_guidance": Ablation("with order guidance 1.5", values={"order_guidance_scale": 1.5}),
    **{
        f"mis_{rule}": Ablation(f"Multi-instance Sampler, {rule} merge", values={"mis_merge": rule, **ALONE})
        for rule in MERGE_RULES
    },
    "no_mis": Ablation("without the Multi-instance Sampler", values={"mis_fraction": 0.0}),
    "no_guidance": Ablation("without guidance", values={"guidance_scale": 1.0}),
    "published_parts": Ablation("the published parts only", _OURS, {"instance_mask": "none"}),
    "published": Ablation("the published parts and inference options", _OURS, PUBLISHED_INFERENCE),
}
"""Every row by name, the whole model first."""


def rows_for(
    adapter: InstanceAdapter, defaults: Any, names: Sequence[str] = ()
) -> tuple[dict[str, Ablation], dict[str, str]]:
    """Choose the rows that say something of a model.

    Args:
        adapter: the model's.
        defaults: its own `GenerationSettings`.
        names: of `ROWS`; none means all. The whole model is always among them.

    Returns:
        The rows, and of the others why they are not measured.

    Raises:
        SettingsError: a name that is no row.
    """
    if unknown := [name for name in names if name not in ROWS]:
        raise SettingsError(f"row: {', '.join(unknown)} is none of {', '.join(ROWS)}")
    chosen: dict[str, Ablation] = {}
    left: dict[str, str] = {}
    own = defaults.replace(instance_mask=defaults.instance_mask or adapter.config.default_instance_mask)
    for name, row in ROWS.items():
        if names and name not in (WHOLE, *names):
            continue
        reasons = {part: why for part in row.off if (why := lacking(adapter, part)) is not None}
        kept = name.removeprefix("only_")
        if name.startswith("only_") and (why := lacking(adapter, kept)) is not None:
            left[name] = f"{PARTS[kept].title}: {why}"
        elif row.off and len(reasons) == len(row.off):
            left[name] = "; ".join(f"{PARTS[part].title}: {why}" for part, why in reasons.items())
        elif name != WHOLE and not row.off and row.order and own.replace(**row.values) == own:
            left[name] = "the model's own settings"
        else:
            chosen[name] = row
    return chosen, left


@dataclass(frozen=True, eq=False)
class AblationRun:
    """An ablation in a folder; each picture is one file, so what was stopped goes on.

    Attributes:
        path: the folder.
        cells: the conditions that are sampled.
        rows: by name.
        defaults: the model's own `GenerationSettings`.
        judge: the evaluator; it detects what pictures show, without being given what was asked for.
    """

    path: Path
    cells: Sequence[Cell]
    rows: Mapping[str, Ablation]
    defaults: Any
    judge: PictureJudge

    def claim(self, decisive: Mapping[str, Any], *, replace: bool = False) -> None:
        """Note what the folder's pictures depend on beside their conditions.

        Raises:
            RunConflictError: it holds those of another model, and `replace` was not asked for.
        """
        claim(self.path, decisive, replace=replace)

    def missing(self) -> list[tuple[str, Cell]]:
        """List the pictures that are not there, as (row, condition), by condition: a part of them compares all rows."""
        pairs = [(name, cell) for cell in self.cells for name in self.rows]
        return [(name, cell) for name, cell in pairs if not self.picture_path(name, cell).exists()]

    def make(self, pipeline: Any, missing: Sequence[tuple[str, Cell]], made: Callable[[int], None]) -> None:
        """Generate pictures, one at a time, so that each has seconds of its own."""
        for name, cell in missing:
            row = self.rows[name]
            with switched_off(pipeline.adapter, row.off):
                start = time.perf_counter()
                scene, settings = cell.asked(order=row.order), self._settings(name)
                image = pipeline(scene, seed=self._seed(name, cell), settings=settings).images[0]
                taken = time.perf_counter() - start
            save_picture(image, taken, self.picture_path(name, cell))
            made(1)

    def picture_path(self, name: str, cell: Cell) -> Path:
        """Say where a picture is."""
        row = self.rows[name]
        values = self._settings(name).decisive()
        decisive = [cell.asked(order=row.order).to_dict(), self._seed(name, cell), values, list(row.off)]
        return picture_path(self.path, name, decisive)

    def measured(self, name: str, added: Callable[[int], None]) -> Iterator[Row]:
        """Measure every picture there is of a row; adds the `seconds` each took."""
        there = [cell for cell in self.cells if self.picture_path(name, cell).exists()]
        for batch in _batches(there):
            opened = [open_picture(self.picture_path(name, cell)) for cell in batch]
            seen = self._look(batch, [image for image, _ in opened])
            for cell, one, (_, seconds) in zip(batch, seen, opened, strict=True):
                yield {**measure_seen(cell, one, name), "seconds": seconds}
            added(len(batch))

    def composites(self, added: Callable[[int], None]) -> Iterator[tuple[str, Row]]:
        """Measure the world's own pictures; yields (`COMPOSITES` or `OTHERS`, row).

        Those of the conditions are the upper bound. Those of other layouts say what is right by chance.
        """
        there = [cell for cell in self.cells if cell.truth.composite is not None]
        half = len(there) // 2
        for batch in _batches(range(len(there))):
            images = [image for k in batch if (image := there[k].truth.composite) is not None]
            for shift, name in ((0, COMPOSITES), (half, OTHERS)):
                asked = [there[(k + shift) % len(there)] for k in batch]
                if shift or name == COMPOSITES:
                    for cell, seen in zip(asked, self._look(asked, images), strict=True):
                        yield name, measure_seen(cell, seen, name)
            added(len(batch))

    def _look(self, cells: Sequence[Cell], images: Sequence[Picture]) -> list[Seen]:
        """Return the judge's detections: in the given boxes where all instances have one, else in the whole picture."""
        return [seen_for_order(self.judge, cell, image) for cell, image in zip(cells, images, strict=True)]

    def _settings(self, name: str) -> Any:
        return self.defaults.replace(**self.rows[name].values)

    def _seed(self, name: str, cell: Cell) -> int:
        own = self.rows[name].own_seeds and cell.front == 1
        return cell.seed + (OWN_SEED if own else 0)


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), JUDGED_TOGETHER):
        yield items[start : start + JUDGED_TOGETHER]
