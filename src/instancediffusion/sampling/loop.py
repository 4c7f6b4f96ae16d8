"""The sampling loop: noise in, latents out, over any denoiser and any stock scheduler."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instancediffusion.sampling.denoiser import Branch, Denoiser
from instancediffusion.sampling.guidance import GuidedBatch
from instancediffusion.sampling.multi_instance import Crop, Merge
from instancediffusion.sampling.noise import copy_generator
from instancediffusion.sampling.order_guidance import OrderBatch, OrderGuidance
from instancediffusion.sampling.schedulers import (
    Scheduler,
    calls_of_steps,
    clean_estimate,
    forget_sample,
    takes_generator,
)


@dataclass(frozen=True)
class StepReport:
    """What an observer learns after each step.

    Attributes:
        step: index of the step just done, from 0.
        num_steps: steps of the run.
        timestep: 0-dim, the noise level the last network call was made at.
        latents: (B, C, H, W) float32, the whole-scene trajectories.
        rows_done: network rows computed so far; a row on part of the canvas counts as the share it is of it.
        rows_total: network rows of the whole run, so that `rows_done / rows_total` is the share of the work done.
        estimate: computes the clean latents (B, C, H, W) the model expects at this point.
    """

    step: int
    num_steps: int
    timestep: Tensor
    latents: Tensor
    rows_done: float
    rows_total: float
    estimate: Callable[[], Tensor]


Observer = Callable[[StepReport], Tensor | None]
"""Called after each step; a tensor it returns replaces the whole-scene latents."""


@dataclass(frozen=True)
class SampleResult:
    """The end of a run.

    Attributes:
        latents: (B, C, H, W) float32: clean latents, or the noisy ones of the moment if the run was stopped.
        estimate: the clean latents; of a run that was stopped, the model's last estimate of them.
        steps_done: steps completed.
        rows_done: network rows computed.
        stopped: `should_stop` ended the run early.
    """

    latents: Tensor
    estimate: Tensor
    steps_done: int
    rows_done: float
    stopped: bool


@dataclass
class _Trajectory:
    """One latent on its way, with a scheduler history of its own. Lives for one call of `sample`."""

    branch: Branch
    latent: Tensor  # (1, C, H, W)
    scheduler: Scheduler
    generator: torch.Generator | None
    crop: Crop | None = None

    @property
    def share(self) -> float:
        """Share of the canvas that the network computes for it."""
        return 1 if self.crop is None else self.crop.share((self.latent.shape[-2], self.latent.shape[-1]))

    def advance(self, prediction: Tensor, timestep: Tensor) -> None:
        """Make one scheduler step; `prediction` is (1, C, H, W)."""
        extra = {} if self.generator is None else {"generator": self.generator}
        self.latent = self.scheduler.step(prediction, timestep, self.latent, **extra).prev_sample

    def replace(self, latent: Tensor) -> None:
        """Go on from another latent, with the history as it is."""
        self.latent = latent.to(self.latent)
        forget_sample(self.scheduler)


class _JointBatch:
    """Trajectories that step together: one bound batch for each size of what the network sees of them."""

    def __init__(
        self, denoiser: Denoiser, active: Sequence[_Trajectory], guidance_scale: float, max_batch_rows: int
    ) -> None:
        self._active = active
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, moving in enumerate(active):  # the whole canvas comes first, since a whole scene does
            size = moving.latent.shape[-2:] if moving.crop is None else moving.crop.hold.shape
            groups.setdefault(tuple(size), []).append(row)
        self._groups = [
            (rows, GuidedBatch(denoiser, [active[row].branch for row in rows], guidance_scale, max_batch_rows))
            for rows in groups.values()
        ]
        self._scene = {moving.branch.image: row for row, moving in enumerate(active) if moving.branch.trajectory == 0}
        halves = 1 if guidance_scale == 1 else 2
        self.rows = halves * sum(moving.share for moving in active)

    def __call__(self, model_input: Tensor, timestep: Tensor, grounding_scale: float) -> tuple[Tensor, Tensor]:
        """Predict on the whole canvas; outside its crop a trajectory has the prediction of its scene.

        Returns:
            Guided and conditional predictions, (T, C, H, W) float32; the latter of whole scenes only, else 0.
        """
        guided = torch.zeros_like(model_input, dtype=torch.float32)
        conditional = torch.zeros_like(guided)
        for rows, batch in self._groups:
            crops = [self._active[row].crop for row in rows]
            shown = [
                model_input[row] if crop is None else crop.cut(model_input[row])
                for row, crop in zip(rows, crops, strict=True)
            ]
            found, plain = batch(torch.stack(shown), timestep, grounding_scale)
            for k, (row, crop) in enumerate(zip(rows, crops, strict=True)):
                if crop is None:
                    guided[row], conditional[row] = found[k], plain[k]
                else:
                    guided[row] = crop.put(guided[self._scene[self._active[row].branch.image]], found[k])
        return guided, conditional


def sample(
    denoiser: Denoiser,
    scheduler: Scheduler,
    noise: Tensor,
    *,
    grounding_scales: Sequence[float],
    guidance_scale: float = 1.0,
    merges: Sequence[Merge] = (),
    merge_after: int = 0,
    order: OrderGuidance | None = None,
    generators: Sequence[torch.Generator] | None = None,
    max_batch_rows: int = 8,
    observe: Observer | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SampleResult:
    """Denoise a batch of images, with the Multi-instance Sampler if asked for.

    For the first `merge_after` steps every image runs its whole scene and, from the same noise, the instances its
    merge rule names, each alone; every trajectory has a scheduler history of its own. Then each image's latents are
    merged, and its whole scene goes on *with its own history*, which stems from before the merge (as published).

    Nothing is shared between images but the network calls they are batched in: an image in a batch differs from the
    same image alone only by the rounding of those.

    Args:
        denoiser: the network.
        scheduler: any stock diffusers scheduler; only copies of it are used.
        noise: (B, C, H, W) standard normal start noise, on the device to sample on.
        grounding_scales: the grounding scale of every step; its length is the number of steps.
        guidance_scale: classifier-free guidance; 1 = off.
        merges: the merge rule of each image; empty = none.
        merge_after: number of steps before the merge; 0 = no instance is run alone.
        order: pushes the whole scenes towards their stated depth order; None = not.
        generators: one for each image, for schedulers that draw noise. They are not advanced. All trajectories of an
            image draw the same noise, because merging would average independent noise away.
        max_batch_rows: most rows in one network call, guidance halves and trajectories counted.
        observe: called after each step.
        should_stop: asked before each network call; True ends the run.

    Returns:
        The latents, float32 on the device of `noise`.
    """
    num_steps = len(grounding_scales)
    template = copy.deepcopy(scheduler)
    template.set_timesteps(num_steps, device=noise.device)
    steps = calls_of_steps(template, num_steps)
    joint_calls = sum(step < merge_after for step in steps) if merges else 0
    noisy = noise.float() * float(template.init_noise_sigma)
    draws = takes_generator(template) and generators is not None

    def trajectory(image: int, index: int, crop: Crop | None = None) -> _Trajectory:
        generator = copy_generator(generators[image]) if draws and generators is not None else None
        return _Trajectory(Branch(image, index), noisy[image : image + 1], copy.deepcopy(template), generator, crop)

    whole = [trajectory(image, 0) for image in range(len(noise))]
    parts = (
        [[trajectory(k, i, merge.crops.get(i)) for i in merge.instances] for k, merge in enumerate(merges)]
        if joint_calls
        else []
    )
    active = [t for image in range(len(whole)) for t in (whole[image], *(parts[image] if parts else ()))]

    ordered = () if order is None else order.images
    ordered_calls = 0 if order is None else sum(step < order.steps for step in steps)
    halves = 1 if guidance_scale == 1 else 2
    rows_total = halves * (sum(t.share for t in active) * joint_calls + len(whole) * (len(steps) - joint_calls))
    rows_total += len(ordered) * ordered_calls
    rows_done: float = 0
    batch: _JointBatch | None = None
    order_batch = OrderBatch(denoiser, order, max_batch_rows) if order is not None and ordered else None
    estimate: Callable[[], Tensor] | None = None
    for call, timestep in enumerate(template.timesteps):
        if should_stop is not None and should_stop():
            latents = _stack(whole)
            return SampleResult(latents, estimate() if estimate else latents, steps[call], rows_done, True)
        if batch is None:
            batch = _JointBatch(denoiser, active, guidance_scale, max_batch_rows)
        model_input = torch.cat([t.scheduler.scale_model_input(t.latent, timestep) for t in active])
        predicted, conditional = batch(model_input, timestep, grounding_scales[steps[call]])
        rows_done += batch.rows
        if order_batch is not None and call < ordered_calls:
            scenes = [row for row, t in enumerate(active) if t.branch.trajectory == 0]
            predicted[scenes] += order_batch(
                model_input[scenes], conditional[scenes], timestep, grounding_scales[steps[call]]
            )
            rows_done += order_batch.rows
        for row, moving in enumerate(active):
            moving.advance(predicted[row : row + 1], timestep)
        estimate = _estimator(template, model_input, predicted, timestep, active)
        if call + 1 < len(steps) and steps[call + 1] == steps[call]:
            continue  # the step is half-way
        if call + 1 == joint_calls:
            for moving, merge, alone in zip(whole, merges, parts, strict=True):
                if alone:
                    moving.replace(merge(moving.latent, {t.branch.trajectory: t.latent for t in alone}))
            active, batch = whole, None
        if observe is not None:
            report = StepReport(steps[call], num_steps, timestep, _stack(whole), rows_done, rows_total, estimate)
            _put_back(whole, observe(report))
    latents = _stack(whole)
    return SampleResult(latents, latents, num_steps, rows_done, False)


def count_rows(
    scheduler: Scheduler,
    num_steps: int,
    merge_after: int,
    shares: Sequence[float],
    guidance_scale: float,
    *,
    ordered: int = 0,
    order_steps: int = 0,
) -> float:
    """Network rows of a run, which its cost is proportional to.

    Args:
        scheduler: any stock scheduler; it is not changed.
        num_steps: steps of the run.
        merge_after: steps before the merge.
        shares: for each image, the summed shares of the canvas that its instances run on alone; an instance on the
            whole canvas counts 1.
        guidance_scale: 1 = off, which halves the rows.
        ordered: images with order guidance.
        order_steps: steps in which it acts.
    """
    template = copy.deepcopy(scheduler)
    template.set_timesteps(num_steps)
    steps = calls_of_steps(template, num_steps)
    apart = sum(step < merge_after for step in steps)
    halves = 1 if guidance_scale == 1 else 2
    extra = ordered * sum(step < order_steps for step in steps)
    return halves * sum(len(steps) + share * apart for share in shares) + extra


def _stack(trajectories: Sequence[_Trajectory]) -> Tensor:
    return torch.cat([t.latent for t in trajectories])


def _put_back(trajectories: Sequence[_Trajectory], latents: Tensor | None) -> None:
    if latents is not None:
        for row, moving in enumerate(trajectories):
            moving.replace(latents[row : row + 1])


def _estimator(
    scheduler: Scheduler,
    model_input: Tensor,
    predicted: Tensor,
    timestep: Tensor,
    active: Sequence[_Trajectory],
) -> Callable[[], Tensor]:
    """Put off the estimate of the whole-scene rows: few steps ask for it."""
    rows = [row for row, t in enumerate(active) if t.branch.trajectory == 0]
    return lambda: clean_estimate(scheduler, model_input[rows], predicted[rows], timestep)
