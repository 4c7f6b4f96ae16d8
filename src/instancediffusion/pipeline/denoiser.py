"""The UNet as a denoiser: picks the context and grounding of each branch from banks computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from instancediffusion.adapter import Grounding
from instancediffusion.sampling import Branch, Prediction


class UNetDenoiser:
    """A stock UNet with an adapter grafted on, bound to the scenes of one run.

    Args:
        unet: the UNet; nothing is stored on it.
        contexts: (K, L, D) text contexts.
        groundings: groundings of one image each. They are joined only for the rows of a call, because joining pads all
            to the widest.
        rows: for a branch, its row of `contexts` and its place in `groundings`.
    """

    def __init__(
        self,
        unet: Any,
        contexts: Tensor,
        groundings: Sequence[Grounding],
        rows: Callable[[Branch], tuple[int, int]],
    ) -> None:
        self._unet = unet
        self._contexts = contexts
        self._groundings = groundings
        self._rows = rows

    def bind(self, branches: Sequence[Branch]) -> Prediction:
        """Gather the conditioning of `branches`; see `Denoiser`."""
        picked = [self._rows(branch) for branch in branches]
        context = self._contexts[torch.tensor([row for row, _ in picked], device=self._contexts.device)]
        grounding = Grounding.cat([self._groundings[row] for _, row in picked])
        unet = self._unet

        def predict(sample: Tensor, timestep: Tensor, grounding_scale: float) -> Tensor:
            predicted: Tensor = unet(
                sample.to(context.dtype),
                timestep,
                encoder_hidden_states=context,
                cross_attention_kwargs={"grounding": grounding.scaled(grounding_scale)},
                return_dict=False,
            )[0]
            return predicted

        return predict
