"""The settings that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from instancediffusion.errors import SettingsError
from instancediffusion.presets import PUBLISHED_INFERENCE

ALONE = {"mis_fraction": 0.36}
"""The published fraction of steps in the per-instance branches of the Multi-instance Sampler (`inference.py`)."""


@dataclass(frozen=True)
class Compared:
    """One row of the comparison.

    Attributes:
        name: short, for commands and files.
        title: for the report.
        values: fields of `GenerationSettings` in place of the model's own.
        order: whether the depth order is given. Without it both orders of a layout are one and the same request, so
            that no pair can come out right: of such a row only prior bias, blend and what is visible say something.
    """

    name: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    order: bool = True


COMPARED: tuple[Compared, ...] = (
    Compared("mean", "published inference options, mean merge, order not given", PUBLISHED_INFERENCE, order=False),
    Compared(
        "crop",
        "published inference options, crop merge, order not given",
        {**PUBLISHED_INFERENCE, "mis_merge": "crop"},
        order=False,
    ),
    Compared("plain", "the model's own settings, order not given", order=False),
    Compared("grounding", "boolean attention mask, order not given", {"instance_mask": "grounding"}, order=False),
    Compared("visibility", "order given, visibility in the attention", {"instance_mask": "visibility"}),
    Compared("layered", "order given, layered merge", {"mis_merge": "layered", **ALONE}),
    Compared("order", "the model's own settings, order given"),
    Compared(
        "all",
        "order given, visibility, layered merge, order guidance",
        {"instance_mask": "visibility", "mis_merge": "layered", "order_guidance_scale": 1.5, **ALONE},
    ),
)
"""Every row, the baselines first. Given an order, a model uses all that it has for it: no row isolates one part."""


def chosen(names: Sequence[str], defaults: Any) -> dict[str, tuple[Compared, Any]]:
    """Return the rows of these names, each with its whole `GenerationSettings`.

    Args:
        names: of `COMPARED`; none means every row that the installed settings accept.
        defaults: the model's own `GenerationSettings`.

    Raises:
        SettingsError: a name that is no row, or a named row that the installed settings do not accept.
    """
    known = {row.name: row for row in COMPARED}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"settings: {', '.join(unknown)} is none of {', '.join(known)}")
    found: dict[str, tuple[Compared, Any]] = {}
    for row in COMPARED if not names else [known[name] for name in dict.fromkeys(names)]:
        try:
            found[row.name] = (row, defaults.replace(**row.values))
        except SettingsError as error:
            if names:
                raise SettingsError(f"settings: {row.name} cannot be used here: {error}") from error
    return found
