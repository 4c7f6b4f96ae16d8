"""Guidance: denoisers round a denoiser. Classifier-free; by negative captions of instances; by depth order (ours)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from instancediffusion.sampling.denoiser import Branch, Denoiser, Network


def guide(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, equation 6 with w + 1 = `guidance_scale`), in float32.

    Half precision would lose most of the small difference that the scale multiplies.
    """
    base = unconditional.float()
    return base + guidance_scale * (conditional.float() - base)


def is_guided(guidance_scale: float) -> bool:
    """Whether a scale asks for guidance. 1 is none, and less counts as none, as in diffusers."""
    return guidance_scale > 1


def rescale_contrast(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Give a guided prediction back the contrast of the conditional one (Lin et al. 2023, section 3.4).

    Args:
        guided: (B, C, H, W).
        conditional: the same shape.
        share: weight of the rescaled prediction, 0 (leaves all as it is) to 1; the rest is the guided one's.
    """
    axes = tuple(range(1, guided.dim()))
    contrast = conditional.float().std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp(min=1e-12)
    return guided * (share * contrast + (1 - share))


def chunk_bounds(rows: int, max_rows: int) -> list[tuple[int, int]]:
    """Cut `rows` batch elements into the fewest chunks of at most `max_rows`, as equal as possible.

    Returns:
        (start, stop) of each chunk.
    """
    count = -(-rows // max_rows)
    edges = [rows * i // count for i in range(count + 1)] if count else [0]
    return list(pairwise(edges))


def bind_in_chunks(network: Network, branches: Sequence[Branch], max_rows: int) -> Denoiser:
    """The denoiser of some branches that calls its network with at most `max_rows` of them at a time."""
    bound = [(network.bind(branches[i:j]), i, j) for i, j in chunk_bounds(len(branches), max_rows)]

    def denoise(sample: Tensor, timestep: Tensor, step: int) -> Tensor:
        return torch.cat([denoiser(sample[i:j], timestep, step) for denoiser, i, j in bound])

    return denoise


@dataclass(frozen=True, eq=False)
class Predictions:
    """A guided prediction, and what it is made of.

    Attributes:
        guided: (T, C, H, W) float32.
        conditional: the same shape.
        unconditional: the same shape; without guidance, the conditional one.
        scale: the guidance scale; 1 or less = there is none.
    """

    guided: Tensor
    conditional: Tensor
    unconditional: Tensor
    scale: float

    def plus(self, added: Tensor) -> Predictions:
        """With something added (B, C, H, W) to the guided predictions of the first B batch elements."""
        count = len(added)
        return replace(self, guided=torch.cat([self.guided[:count] + added, self.guided[count:]]))


class GuidedDenoiser(ABC):
    """A denoiser that also returns what its prediction is made of, for what goes round it."""

    @abstractmethod
    def predict(self, sample: Tensor, timestep: Tensor, step: int) -> Predictions:
        """Predict; arguments as those of `Denoiser`."""

    def __call__(self, sample: Tensor, timestep: Tensor, step: int) -> Tensor:
        """The guided prediction (T, C, H, W), float32; see `Denoiser`."""
        return self.predict(sample, timestep, step).guided


class ClassifierFreeGuidance(GuidedDenoiser):
    """u + s (c - u): away from what the network predicts without prompt and instances.

    Conditional and unconditional branches of all batch elements are calls of one network. They are bound when they are
    first needed, and again only where guidance begins or ends.

    Args:
        network: the network.
        branches: the batch elements; their `conditional` is ignored.
        scale: s; 1 or less is none, and the unconditional branch is not computed. A function is asked before each call,
            so that a run may change it.
        interval: the steps in which it acts (Kynkäänniemi et al. 2024); None = all.
        rescale: weight of `rescale_contrast`.
        max_rows: most batch elements in one network call, 1 or more.
    """

    def __init__(
        self,
        network: Network,
        branches: Sequence[Branch],
        scale: float | Callable[[], float],
        *,
        interval: range | None = None,
        rescale: float = 0.0,
        max_rows: int = 8,
    ) -> None:
        self._network, self._branches, self._max_rows = network, branches, max_rows
        self._scale, self._interval, self._rescale = scale, interval, rescale
        self._conditions: tuple[bool, ...] = ()
        self._denoise: Denoiser | None = None

    def predict(self, sample: Tensor, timestep: Tensor, step: int) -> Predictions:
        """Predict for every batch element; without guidance all three predictions are the same."""
        acts = self._interval is None or step in self._interval
        scale = 1.0 if not acts else self._scale() if callable(self._scale) else self._scale
        conditions = (True, False) if is_guided(scale) else (True,)
        if self._denoise is None or conditions != self._conditions:
            # All conditional branches, then all unconditional ones: those of a kind have about as many tokens each, and
            # a call pads its whole batch to the longest.
            branches = [replace(branch, conditional=flag) for flag in conditions for branch in self._branches]
            self._denoise, self._conditions = bind_in_chunks(self._network, branches, self._max_rows), conditions
        predicted = self._denoise(sample.repeat(len(conditions), 1, 1, 1), timestep, step)
        if len(conditions) == 1:
            only = predicted.float()
            return Predictions(only, only, only, scale)
        conditional, unconditional = predicted.chunk(2)
        guided = guide(conditional, unconditional, scale)
        if self._rescale:
            guided = rescale_contrast(guided, conditional, self._rescale)
        return Predictions(guided, conditional.float(), unconditional.float(), scale)


class NegativeCaptions(GuidedDenoiser):
    """What each instance is not to look like, given to the unconditional branch where the instance is visible.

    Guidance moves away from the unconditional prediction u; with weights w_i that sum to at most 1 in each latent pixel
    it is u + sum w_i (u_i - u), with u_i predicted from the negative caption of instance i. Where there is no guidance
    it takes no network function evaluations.

    Args:
        denoiser: of a batch that begins with the whole scenes of B images, in their order.
        network: the network.
        where: for each image, by the instance (from 1) that has a negative caption, (H, W) weights 0..1; at least one.
        max_rows: most batch elements in one network call.
    """

    def __init__(
        self, denoiser: GuidedDenoiser, network: Network, where: Sequence[Mapping[int, Tensor]], max_rows: int
    ) -> None:
        self._denoiser, self._images = denoiser, len(where)
        captioned = [(image, number) for image, own in enumerate(where) for number in own]
        self._rows = torch.tensor([image for image, _ in captioned])
        self._where = torch.stack([where[image][number] for image, number in captioned])[:, None]
        branches = [Branch(image, conditional=False, negative=number) for image, number in captioned]
        self._bind = partial(bind_in_chunks, network, branches, max_rows)
        self._denoise: Denoiser | None = None

    def predict(self, sample: Tensor, timestep: Tensor, step: int) -> Predictions:
        """Predict, with what negative captions add to the whole scenes."""
        found = self._denoiser.predict(sample, timestep, step)
        if not is_guided(found.scale):
            return found
        self._denoise = self._denoise or self._bind()
        self._rows, self._where = self._rows.to(sample.device), self._where.to(sample.device)
        own = self._denoise(sample[self._rows], timestep, step).float()
        away = ((1 - found.scale) * self._where).to(own) * (own - found.unconditional[self._rows])
        return found.plus(torch.zeros_like(found.guided[: self._images]).index_add(0, self._rows, away))


class OrderGuidance(GuidedDenoiser):
    """Counterfactual order guidance: away from the picture in which the same instances stand the other way round.

    `scale * where * (asked order - reversed order)`, of conditional branches, is added to the prediction. All but the
    order is the same in the two, so their difference is what the order does. Late steps draw details, on which a
    reversed order has no say, so it acts in the early ones.

    Args:
        denoiser: of a batch that begins with the whole scenes of B images, in their order.
        network: the network.
        where: (B, H, W), 0..1: where instances of stated order overlap, on one image at least. Images where that is
            nowhere take no network function evaluations.
        scale: strength, above 0.
        steps: number of steps it acts in, from the start.
        max_rows: most batch elements in one network call.
    """

    def __init__(
        self, denoiser: GuidedDenoiser, network: Network, where: Tensor, scale: float, *, steps: int, max_rows: int = 8
    ) -> None:
        self._denoiser, self._steps = denoiser, steps
        self._rows = where.flatten(1).any(1).nonzero()[:, 0]
        self._weight = scale * where[self._rows][:, None]
        self._images = len(where)
        branches = [Branch(image, swapped=True) for image in self._rows.tolist()]
        self._bind = partial(bind_in_chunks, network, branches, max_rows)
        self._denoise: Denoiser | None = None

    def predict(self, sample: Tensor, timestep: Tensor, step: int) -> Predictions:
        """Predict, with what the order adds to the whole scenes."""
        found = self._denoiser.predict(sample, timestep, step)
        if step >= self._steps:
            return found
        self._denoise = self._denoise or self._bind()
        self._rows, self._weight = self._rows.to(sample.device), self._weight.to(sample.device)
        other = self._denoise(sample[self._rows], timestep, step).float()
        added = torch.zeros_like(found.guided[: self._images])
        added[self._rows] = self._weight.to(other) * (found.conditional[self._rows] - other)
        return found.plus(added)
