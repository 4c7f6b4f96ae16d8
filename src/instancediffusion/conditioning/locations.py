"""`LocationTensors`: where every instance of a batch of scenes is, as tensors.

One record per image and slot; which kinds of location a slot holds is said by `present`, never by magic
values, so a box at the origin and "no box" are different things.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from instancediffusion.geometry import NUM_MASK_POINTS, NUM_SCRIBBLE_POINTS
from instancediffusion.scene import KINDS as KINDS

SCRIBBLE_POINTS, MASK_POINTS = NUM_SCRIBBLE_POINTS, NUM_MASK_POINTS


@dataclass(frozen=True)
class LocationTensors:
    """Locations of B images with N slots each; coordinates are fractions of the canvas, (x, y).

    Attributes:
        boxes: (B, N, 4) float32, xyxy.
        points: (B, N, 2) float32.
        scribbles: (B, N, P, 2) float32, P = 20 in the published model.
        mask_points: (B, N, Q, 2) float32, Q = 256 samples of the mask in the published model.
        used: (B, N) bool; False marks padding of a batch whose images have different numbers of instances.
        present: for each of `KINDS`, (B, N) bool: the slot holds this kind. Implies `used`.
        z_order: (B, N) float32, dense rank of the stated order inside its image, 0 = farthest.
        z_known: (B, N) bool: an order was stated for this slot.
        segmentations: (B, N, S, S) uint8 bitmaps indexed [y, x], or None where no image has a mask.
        segmentation_channel: (B, N) int64, the channel of the whole-image segmentation input that a slot's
            bitmap is drawn into, or -1 for none. Ignored without `segmentations`.
    """

    boxes: Tensor
    points: Tensor
    scribbles: Tensor
    mask_points: Tensor
    used: Tensor
    present: Mapping[str, Tensor]
    z_order: Tensor
    z_known: Tensor
    segmentations: Tensor | None
    segmentation_channel: Tensor

    def __post_init__(self) -> None:
        """Check that all parts have the same B and N."""
        if set(self.present) != set(KINDS):
            raise ValueError(f"present: expected the kinds {KINDS}, got {tuple(self.present)}")
        expected = tuple(self.boxes.shape[:2])
        plain = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        for name, value in [*plain.items(), *self.present.items()]:
            if tuple(value.shape[:2]) != expected:
                raise ValueError(f"{name}: expected leading sizes {expected} as in boxes, got {tuple(value.shape)}")

    @classmethod
    def empty(
        cls,
        batch_size: int,
        slots: int = 0,
        *,
        scribble_points: int = SCRIBBLE_POINTS,
        mask_points: int = MASK_POINTS,
    ) -> LocationTensors:
        """No instance anywhere: the grounding of the unconditional pass."""
        shape = (batch_size, slots)
        return cls(
            boxes=torch.zeros(*shape, 4),
            points=torch.zeros(*shape, 2),
            scribbles=torch.zeros(*shape, scribble_points, 2),
            mask_points=torch.zeros(*shape, mask_points, 2),
            used=torch.zeros(shape, dtype=torch.bool),
            present={kind: torch.zeros(shape, dtype=torch.bool) for kind in KINDS},
            z_order=torch.zeros(shape),
            z_known=torch.zeros(shape, dtype=torch.bool),
            segmentations=None,
            segmentation_channel=torch.full(shape, -1),
        )

    @property
    def batch_size(self) -> int:
        """B, the number of images."""
        return self.boxes.shape[0]

    @property
    def slots(self) -> int:
        """N, the number of instance slots of the widest image."""
        return self.boxes.shape[1]

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.boxes.device

    def to(self, device: torch.device | str) -> LocationTensors:
        """The same locations on another device; the types do not change."""
        return self if self.device == torch.device(device) else self._map(lambda value: value.to(device))

    def select(self, rows: Sequence[int] | Tensor) -> LocationTensors:
        """The images `rows`, in that order; an image may be selected several times."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.device)
        return self._map(lambda value: value[index])

    def drop(self, *kinds: str) -> LocationTensors:
        """The same instances without the named kinds of location; their captions stay."""
        unknown = set(kinds) - set(KINDS)
        if unknown:
            raise ValueError(f"unknown kind of location {sorted(unknown)}; expected some of {KINDS}")
        return replace(self, present={k: torch.zeros_like(v) if k in kinds else v for k, v in self.present.items()})

    @staticmethod
    def cat(parts: Sequence[LocationTensors]) -> LocationTensors:
        """Join batches; images with fewer slots are padded with unused ones."""
        slots = max(part.slots for part in parts)
        padded = [part.pad(slots) for part in parts]
        size = next((p.segmentations.shape[-1] for p in padded if p.segmentations is not None), None)
        if size is not None:
            padded = [p._with_segmentations(size) for p in padded]
        kinds = {kind: torch.cat([p.present[kind] for p in padded]) for kind in KINDS}
        plain = {name: [getattr(p, name) for p in padded] for name in vars(padded[0]) if name != "present"}
        joined: dict[str, Any] = {
            name: None if values[0] is None else torch.cat(values) for name, values in plain.items()
        }
        return LocationTensors(present=kinds, **joined)

    def pad(self, slots: int) -> LocationTensors:
        """The same images with at least `slots` slots; the added ones are unused."""
        extra = slots - self.slots
        if extra <= 0:
            return self

        wider = self._map(lambda value: functional.pad(value, [0, 0] * (value.dim() - 2) + [0, extra]))
        channels = functional.pad(self.segmentation_channel, [0, extra], value=-1)
        return replace(wider, segmentation_channel=channels)

    def _with_segmentations(self, size: int) -> LocationTensors:
        if self.segmentations is not None:
            return self
        blank = torch.zeros(self.batch_size, self.slots, size, size, dtype=torch.uint8, device=self.device)
        return replace(self, segmentations=blank)

    def _map(self, function: Callable[[Tensor], Tensor]) -> LocationTensors:
        """The same with a function applied to all tensors."""
        kinds = {kind: function(flags) for kind, flags in self.present.items()}
        plain = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, present=kinds, **{name: function(value) for name, value in plain.items()})
