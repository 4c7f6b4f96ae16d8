"""The settings that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from instancediffusion.errors import SettingsError

PUBLISHED: Mapping[str, Any] = {
    "scheduler": "plms",
    "num_inference_steps": 50,
    "grounding_fraction": 0.8,
    "mis_fraction": 0.36,
    "mis_merge": "mean",
}
"""The published method's; the guidance scale stays the model's own."""

_ALONE = {"mis_fraction": 0.36}


@dataclass(frozen=True)
class Compared:
    """One row of the comparison.

    Attributes:
        name: short, for commands and files.
        title: for people.
        values: fields of `GenerationSettings` in place of the model's own.
        order: whether the depth order is told. Without it both orders of a layout are one and the same request.
    """

    name: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    order: bool = True


COMPARED: tuple[Compared, ...] = (
    Compared("mean", "published settings, mean merge", PUBLISHED, order=False),
    Compared("crop", "published settings, crop merge", {**PUBLISHED, "mis_merge": "crop"}, order=False),
    Compared("plain", "the model's own settings, no order", {}, order=False),
    Compared("grounding", "boolean attention mask, no order", {"instance_mask": "grounding"}, order=False),
    Compared("visibility", "visibility in the attention", {"instance_mask": "visibility"}),
    Compared("layered", "layered merge", {"mis_merge": "layered", **_ALONE}),
    Compared("order", "order tokens"),
    Compared(
        "all",
        "order tokens, visibility, layered merge, order guidance",
        {"instance_mask": "visibility", "mis_merge": "layered", "order_guidance_scale": 1.5, **_ALONE},
    ),
)
"""Every row, the baselines first."""


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
