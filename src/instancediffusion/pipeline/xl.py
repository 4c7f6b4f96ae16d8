"""Projected texts beside the time step, as Stable Diffusion XL takes them: what a call gives of them."""

from __future__ import annotations

from torch import Tensor

from instancediffusion.conditioning.text import TextBank
from instancediffusion.errors import SettingsError


def check_pooled(width: int | None, name: str, pooled: Tensor | None, beside: str, embeds: Tensor | None) -> None:
    """Raise `SettingsError` unless encoded texts come with projected ones, one for each, where the model takes them.

    Args:
        width: of projected texts; None for models that take none.
        name: of the argument.
        pooled: what was given (B, `width`).
        beside: name of the argument for encoded texts.
        embeds: these texts (B, L, D).
    """
    if width is None:
        if pooled is not None:
            raise SettingsError(f"{name}: only XL takes them, and this model is none; leave them out")
        return
    if embeds is None and pooled is not None:
        raise SettingsError(f"{name}: they go with {beside}, which are not given; give both, as encode_prompt does")
    if embeds is not None and (pooled is None or tuple(pooled.shape) != (len(embeds), width)):
        found = "there are none" if pooled is None else f"their shape is {tuple(pooled.shape)}"
        raise SettingsError(f"{name}: {found}; with {beside} give ({len(embeds)}, {width}), as encode_prompt does")


def without_text(bank: TextBank, force_zeros: bool) -> tuple[TextBank, int | None]:
    """The bank with a row for no negative prompt at all, and that row; None where the empty text is read as any other.

    XL was trained with zeros in place of the text, not with the empty text (`force_zeros_for_empty_prompt`).
    """
    if not force_zeros or bank.projected is None:
        return bank, None
    longest = max(bank.lengths)
    nothing = bank.contexts.new_zeros(longest, bank.contexts.shape[-1])
    found, rows = bank.with_contexts([nothing])
    return found, rows[0]
