"""Configuration of a judge's networks and of its training data. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from instancediffusion.errors import SettingsError

CELL_PX = 4
"""Stride of the detector's feature map, in pixels of its input."""


@dataclass(frozen=True)
class JudgeConfig:
    """The networks, and the classes and attributes they predict.

    A judge has two networks. The detector takes the whole picture, downsampled, and predicts at each position of its
    feature map whether there is an object, and the box of that object. The reader takes a window around each detected
    object, cropped from the full-size picture, and predicts the object's class, attributes and masks.

    Attributes:
        kinds: names of the object classes.
        colours: names of colours.
        facings: names of orientations.
        side_px: side the picture is downsampled to. A multiple of 32.
        widths: the detector's channels at 1/4, 1/8, 1/16 and 1/32 of the picture's side.
        depths: residual blocks of the encoder, at each of these.
        hidden: channels of its last layer, whose mean over all positions is the picture's feature vector.
        crop_px: side of the reader's windows. A multiple of 16.
        crop_widths: the reader's channels at 1/4, 1/8 and 1/16 of the window's side.
    """

    kinds: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    facings: tuple[str, ...] = ("left", "right")
    side_px: int = 96
    widths: tuple[int, ...] = (40, 80, 128, 128)
    depths: tuple[int, ...] = (1, 1, 1, 1)
    hidden: int = 96
    crop_px: int = 48
    crop_widths: tuple[int, ...] = (80, 160, 192)

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.side_px < 32 or self.side_px % 32:
            raise SettingsError(f"side_px = {self.side_px}: expected a multiple of 32")
        if len(self.widths) != 4 or len(self.depths) != 4 or min(*self.widths, self.hidden) < 1 or min(self.depths) < 0:
            raise SettingsError(f"widths, depths = {self.widths}, {self.depths}: expected four numbers each")
        if self.crop_px < 16 or self.crop_px % 16:
            raise SettingsError(f"crop_px = {self.crop_px}: expected a multiple of 16")
        if len(self.crop_widths) != 3 or min(self.crop_widths) < 1:
            raise SettingsError(f"crop_widths = {self.crop_widths}: expected three numbers")

    @property
    def words(self) -> tuple[int, int, int]:
        """Number of classes (with "no object"), of colours and of orientations."""
        return len(self.kinds) + 1, len(self.colours), len(self.facings)

    @property
    def grid(self) -> int:
        """Side of the detector's feature map, in positions."""
        return self.side_px // CELL_PX

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JudgeConfig:
        """Read what `to_dict` returned.

        Raises:
            SettingsError: unknown fields, or values that cannot be built.
        """
        try:
            read: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
            return cls(**read)
        except TypeError as error:
            raise SettingsError(f"judge: {error}") from error


@dataclass(frozen=True)
class JudgeLessons:
    """The pictures a judge is trained on.

    Attributes:
        options: fields of the `WorldSpec`; the size is `side_px`.
        side_px: side of the pictures.
        first_seed: world seed of the first picture.
        pool: pictures to choose from at any step; the window moves on as the steps go.
        fresh: pictures by which it moves in a step. Each is then used about `batch_size / fresh` times.
        coarse: fraction of pictures that are first resized to half their size and back, as small models' pictures are.
        blur: fraction of pictures that are blurred.
        noise: largest standard deviation of added noise, fine and coarse, where pixels are -1..1.
        shade: largest change of brightness and contrast, per channel a third of it.
        crops: windows a step.
        empty: fraction of these that show no object.
        jitter: standard deviation of the error of the boxes given to the reader, in fractions of their sides, to match
            the errors of predicted boxes.
    """

    options: dict[str, Any] = field(default_factory=dict)
    side_px: int = 192
    first_seed: int = 40_000_000
    pool: int = 500
    fresh: int = 2
    coarse: float = 0.5
    blur: float = 0.25
    noise: float = 0.08
    shade: float = 0.08
    crops: int = 48
    empty: float = 0.08
    jitter: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.pool < 1 or self.fresh < 0:
            raise SettingsError(f"pool, fresh = {self.pool}, {self.fresh}: expected at least 1 and 0")
        if self.crops < 1 or not 0 <= self.empty < 1 or self.jitter < 0:
            raise SettingsError(
                f"crops, empty, jitter = {self.crops}, {self.empty}, {self.jitter}: expected at least 1, a fraction "
                "below 1, and at least 0"
            )
