"""Trajectories of images as one scheduler: whole scenes, and per-instance branches, each with a history of its own."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from instancediffusion.sampling.denoiser import Branch
from instancediffusion.sampling.merges import Crop, Merge
from instancediffusion.sampling.noise import copy_generator
from instancediffusion.sampling.schedulers import (
    Scheduler,
    forget_sample,
    order_option,
    remembers_samples,
    seed_noise,
    step_options,
    steps_by_row,
    takes_generator,
)


@dataclass
class _Pack:
    """Trajectories that one scheduler steps as a batch; its history changes with each step."""

    branches: Sequence[Branch]
    crops: Sequence[Crop | None]
    scheduler: Scheduler
    generators: Sequence[torch.Generator]  # one for each batch element; empty = no noise is sampled


class Trajectories:
    """A scheduler, as `sample` takes one, that steps each batch element as it would be stepped by itself.

    The batch is the whole scenes of all images, in their order, then the per-instance branches, image by image. All
    trajectories of an image sample the same noise, because merging would average independent noise away.

    Args:
        template: a scheduler without history whose timesteps are set; copies of it are used.
        images: B.
        merges: the merge rule of each image, which names its instances; empty = whole scenes only.
        generators: one for each image, for schedulers that sample noise. Images may share one; then they use it in
            turn.
        eta: how much noise a scheduler that asks for it adds (Song et al. 2021, equation 16).
    """

    def __init__(
        self,
        template: Scheduler,
        images: int,
        merges: Sequence[Merge] = (),
        generators: Sequence[torch.Generator] = (),
        eta: float = 0.0,
    ) -> None:
        self._template, self._generators, self._options = template, generators, step_options(template, eta)
        whole = [(image, 0) for image in range(images)]
        parts = [(image, index) for image, merge in enumerate(merges) for index in merge.instances]
        by_row = steps_by_row(template)
        # Images that share a generator draw from it in turn. And what a scheduler forgets it forgets for its batch.
        separate = not by_row or remembers_samples(template) or len({id(g) for g in generators}) < len(generators)
        self._whole = [self._pack([row], merges) for row in whole] if separate else [self._pack(whole, merges)]
        in_packs = [parts] if by_row and parts else [[row] for row in parts]
        self._parts = [self._pack(rows, merges) for rows in in_packs]

    def _pack(self, rows: Sequence[tuple[int, int]], merges: Sequence[Merge]) -> _Pack:
        own, given, drawn = copy.deepcopy(self._template), self._generators, []
        if given:
            # Images that share a generator have different noise.
            turns = [sum(g is given[image] for g in given[:image]) for image, _ in rows]
            seed_noise(own, [given[image] for image, _ in rows], turns)
            if takes_generator(own):
                drawn = [copy_generator(given[image]) if index else given[image] for image, index in rows]
        crops = [merges[image].crops.get(index) if index else None for image, index in rows]
        return _Pack([Branch(image, index) for image, index in rows], crops, own, drawn)

    @property
    def _packs(self) -> list[_Pack]:
        return [*self._whole, *self._parts]

    @property
    def branches(self) -> list[Branch]:
        """Which image and instance each batch element is."""
        return [branch for pack in self._packs for branch in pack.branches]

    @property
    def images(self) -> list[int]:
        """The image of each batch element."""
        return [branch.image for branch in self.branches]

    @property
    def crops(self) -> list[Crop | None]:
        """The part of the canvas that each batch element is computed on; None = all of it."""
        return [crop for pack in self._packs for crop in pack.crops]

    def scenes(self) -> Trajectories:
        """Only the whole scenes, which go on with the history they have."""
        found = copy.copy(self)
        found._parts = []
        return found

    def scale_model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """What the network sees of latents (T, C, H, W)."""
        pairs = zip(self._packs, self._split(latents), strict=True)
        return torch.cat([pack.scheduler.scale_model_input(own, timestep) for pack, own in pairs])

    def step(self, predicted: Tensor, timestep: Tensor, latents: Tensor) -> SchedulerOutput:
        """Make one step of each batch element, from predictions and latents (T, C, H, W)."""
        states: dict[int, Tensor] = {}  # of each image's generator, before its whole scene draws from it
        found = []
        for pack, own, output in zip(self._packs, self._split(latents), self._split(predicted), strict=True):
            options: dict[str, object] = {**self._options, **order_option(pack.scheduler)}
            for branch, generator in zip(pack.branches, pack.generators, strict=False):
                if branch.trajectory == 0:
                    states[branch.image] = generator.get_state()
                else:
                    generator.set_state(states[branch.image])
            if pack.generators:
                options["generator"] = list(pack.generators)
            found.append(pack.scheduler.step(output, timestep, own, **options).prev_sample)
        return SchedulerOutput(prev_sample=torch.cat(found))

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents (T, C, H, W) at the noise level of a timestep."""
        pairs = zip(self._packs, self._split(clean), self._split(noise), strict=True)
        return torch.cat([pack.scheduler.add_noise(own, drawn, timesteps) for pack, own, drawn in pairs])

    def forget(self, rows: Collection[int]) -> None:
        """Go on from other latents in some batch elements, which no step has made, with the history as it is."""
        first = 0
        for pack in self._packs:
            after = first + len(pack.branches)
            if any(first <= row < after for row in rows):
                forget_sample(pack.scheduler)
            first = after

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.split([len(pack.branches) for pack in self._packs])
