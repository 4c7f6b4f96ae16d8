"""The sampling loop: noise in, latents out, over any denoiser and any stock scheduler."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from instancediffusion.sampling.denoiser import Branch, Denoiser
from instancediffusion.sampling.guidance import GuidedBatch, is_guided
from instancediffusion.sampling.multi_instance import Crop, Merge
from instancediffusion.sampling.negatives import NegativeBatch, NegativeCaptions
from instancediffusion.sampling.noise import copy_generator
from instancediffusion.sampling.order_guidance import OrderBatch, OrderGuidance
from instancediffusion.sampling.schedulers import (
    Scheduler,
    Steps,
    clean_estimate,
    forget_sample,
    order_option,
    seed_noise,
    step_options,
    takes_generator,
)
from instancediffusion.sampling.start import Start, begin_at


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
class Guidance:
    """Classifier-free guidance of a run.

    Attributes:
        scale: the scale; 1 or less is none. A function is asked before each network call, so that a run may change it.
        rescaled: share of the guided prediction's contrast that is put back, 0 to 1; see `guidance.rescale`.
        epoch: asked before each network call: when the number changes, the conditioning has changed, and is gathered
            anew.
    """

    scale: float | Callable[[], float] = 1.0
    rescaled: float = 0.0
    epoch: Callable[[], int] = lambda: 0

    @property
    def now(self) -> float:
        """The scale of the next network call."""
        return self.scale() if callable(self.scale) else self.scale


@dataclass(frozen=True)
class SampleResult:
    """The end of a run.

    Attributes:
        latents: (B, C, H, W) float32: clean latents, or the noisy ones of the moment if the run was stopped.
        estimate: the clean latents; of a run that was stopped, the model's last estimate of them.
        steps_done: steps completed.
        rows_done: network rows computed.
        stopped: `should_stop` ended the run early.
        parts: for each image, by instance, the latents (C, H, W) of those that were asked to run to the end.
    """

    latents: Tensor
    estimate: Tensor
    steps_done: int
    rows_done: float
    stopped: bool
    parts: Sequence[Mapping[int, Tensor]] = field(default_factory=tuple)


@dataclass
class _Trajectory:
    """One latent on its way, with a scheduler history of its own. Lives for one call of `sample`."""

    branch: Branch
    latent: Tensor  # (1, C, H, W)
    scheduler: Scheduler
    generator: torch.Generator | None
    options: dict[str, float]
    crop: Crop | None = None

    @property
    def share(self) -> float:
        """Share of the canvas that the network computes for it."""
        return 1 if self.crop is None else self.crop.share((self.latent.shape[-2], self.latent.shape[-1]))

    def advance(self, prediction: Tensor, timestep: Tensor) -> None:
        """Make one scheduler step; `prediction` is (1, C, H, W)."""
        extra: dict[str, Any] = {} if self.generator is None else {"generator": self.generator}
        extra |= order_option(self.scheduler)
        self.latent = self.scheduler.step(prediction, timestep, self.latent, **self.options, **extra).prev_sample

    def replace(self, latent: Tensor) -> None:
        """Go on from another latent, with the history as it is."""
        self.latent = latent.to(self.latent)
        forget_sample(self.scheduler)


class _JointBatch:
    """Trajectories that step together: one bound batch for each size of what the network sees of them."""

    def __init__(
        self,
        denoiser: Denoiser,
        active: Sequence[_Trajectory],
        guidance_scale: float,
        rescaled: float,
        max_batch_rows: int,
        order: OrderGuidance | None,
        negatives: NegativeCaptions,
    ) -> None:
        self._active = active
        away = is_guided(guidance_scale) and negatives.rows > 0
        self._negatives = NegativeBatch(denoiser, negatives, guidance_scale, max_batch_rows) if away else None
        self._order = OrderBatch(denoiser, order, max_batch_rows) if order is not None and order.images else None
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, moving in enumerate(active):  # the whole canvas comes first, since a whole scene does
            size = moving.latent.shape[-2:] if moving.crop is None else moving.crop.hold.shape
            groups.setdefault(tuple(size), []).append(row)
        self._groups = [
            (rows, GuidedBatch(denoiser, [active[r].branch for r in rows], guidance_scale, max_batch_rows, rescaled))
            for rows in groups.values()
        ]
        self._scene = {moving.branch.image: row for row, moving in enumerate(active) if moving.branch.trajectory == 0}
        self._rows = (1 + is_guided(guidance_scale)) * sum(moving.share for moving in active)
        self._rows += self._negatives.rows if self._negatives is not None else 0

    def rows(self, ordered: bool) -> float:
        """Network rows of a call, with order guidance or without."""
        return self._rows + (self._order.rows if ordered and self._order is not None else 0)

    def __call__(self, model_input: Tensor, timestep: Tensor, grounding_scale: float, ordered: bool) -> Tensor:
        """Predict on the whole canvas; outside its crop a trajectory has the prediction of its scene.

        Args:
            model_input: (T, C + E, H, W), the latents and what the network sees beside them.
            timestep: 0-dim.
            grounding_scale: 0 to 1.
            ordered: order guidance acts.

        Returns:
            Guided predictions, (T, C, H, W) float32.
        """
        channels = self._active[0].latent.shape[1]
        guided = torch.zeros_like(model_input[:, :channels], dtype=torch.float32)
        conditional, unconditional = torch.zeros_like(guided), torch.zeros_like(guided)
        for rows, batch in self._groups:
            crops = [self._active[row].crop for row in rows]
            shown = [
                model_input[row] if crop is None else crop.cut(model_input[row])
                for row, crop in zip(rows, crops, strict=True)
            ]
            found, plain, away = batch(torch.stack(shown), timestep, grounding_scale)
            for k, (row, crop) in enumerate(zip(rows, crops, strict=True)):
                if crop is None:
                    guided[row], conditional[row], unconditional[row] = found[k], plain[k], away[k]
                else:
                    guided[row] = crop.put(guided[self._scene[self._active[row].branch.image]], found[k])
        scenes = list(self._scene.values())
        added = self._negatives
        if added is not None:
            guided[scenes] += added(model_input[scenes], unconditional[scenes], timestep, grounding_scale)
        if ordered and self._order is not None:
            guided[scenes] += self._order(model_input[scenes], conditional[scenes], timestep, grounding_scale)
        return guided


def sample(
    denoiser: Denoiser,
    scheduler: Scheduler,
    noise: Tensor,
    *,
    grounding_scales: Sequence[float],
    guidance_scale: float | Guidance = 1.0,
    steps: Steps | None = None,
    eta: float = 0.0,
    merges: Sequence[Merge] = (),
    merge_after: int = 0,
    order: OrderGuidance | None = None,
    negatives: NegativeCaptions = NegativeCaptions(),  # noqa: B008 - frozen
    start: Start | None = None,
    keep_parts: bool = False,
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
        grounding_scales: the grounding scale of every step that is made; its length is their number.
        guidance_scale: classifier-free guidance, 1 or less = off; as a `Guidance` it may change on the way.
        steps: the steps of the schedule; None = as many as there are grounding scales, spaced as the scheduler does.
        eta: how much noise a scheduler that asks for it adds (Song et al. 2021, equation 16); 0 = none.
        merges: the merge rule of each image; empty = none.
        merge_after: number of steps before the merge; 0 = no instance is run alone.
        order: pushes the whole scenes towards their stated depth order; None = not.
        negatives: negative captions of instances, in the whole scenes; instances alone have theirs by their branch.
        start: pictures to go on from; the first `start.step` steps of the schedule are then left out.
        keep_parts: the instances run on to the end, each on its crop, after the merge from the merged scene round it.
        generators: one for each image, for schedulers that draw noise. Images may share one; then they draw from it in
            turn. All trajectories of an image draw the same noise, because merging would average independent noise
            away.
        max_batch_rows: most rows in one network call, guidance halves and trajectories counted.
        observe: called after each step.
        should_stop: asked before each network call; True ends the run.

    Returns:
        The latents, float32 on the device of `noise`.
    """
    num_steps = len(grounding_scales)
    guidance = guidance_scale if isinstance(guidance_scale, Guidance) else Guidance(guidance_scale)
    template = copy.deepcopy(scheduler)
    planned = (steps or Steps(num_steps + (start.step if start else 0))).set_on(template, noise.device)
    timesteps, step_of_call = begin_at(template, planned, start.step if start else 0)
    merge_call = sum(step < merge_after for step in step_of_call) if merges else 0
    calls = len(step_of_call)
    joint_calls = calls if keep_parts and merges else merge_call
    noise = noise.float()
    noisy = noise * float(template.init_noise_sigma) if start is None else start.noisy(template, noise, timesteps[0])
    whole, parts = _trajectories(
        template, noisy, merges if joint_calls else (), generators, step_options(template, eta)
    )
    active = [t for image in range(len(whole)) for t in (whole[image], *parts[image])]

    ordered_calls = 0 if order is None else sum(step < order.steps for step in step_of_call)
    halves = 1 + is_guided(guidance.now)
    rows_total = halves * (sum(t.share for t in active) * joint_calls + len(whole) * (calls - joint_calls))
    rows_total += 0 if order is None else len(order.images) * ordered_calls
    rows_total += negatives.rows * calls if is_guided(guidance.now) else 0
    rows_done: float = 0
    batch: _JointBatch | None = None
    bound: tuple[float, int] | None = None
    estimate: Callable[[], Tensor] | None = None
    for call, timestep in enumerate(timesteps):
        if should_stop is not None and should_stop():
            latents = _stack(whole)
            return SampleResult(latents, estimate() if estimate else latents, step_of_call[call], rows_done, True)
        step = step_of_call[call]
        if batch is None or bound != (guidance.now, guidance.epoch()):
            bound = (guidance.now, guidance.epoch())
            batch = _JointBatch(denoiser, active, bound[0], guidance.rescaled, max_batch_rows, order, negatives)
        model_input = torch.cat([t.scheduler.scale_model_input(t.latent, timestep) for t in active])
        seen = model_input
        if start is not None and start.channels is not None:
            beside = start.channels.to(model_input)[[t.branch.image for t in active]]
            seen = torch.cat([model_input, beside], 1)
        predicted = batch(seen, timestep, grounding_scales[step], call < ordered_calls)
        rows_done += batch.rows(call < ordered_calls)
        _advance(active, predicted, timestep)
        estimate = _estimator(template, model_input, predicted, timestep, active)
        if call + 1 < calls and step_of_call[call + 1] == step:
            continue  # the step is half-way
        if start is not None:
            following = timesteps[call + 1] if call + 1 < calls else None
            for t in active:
                # Its memory of samples stays: it is of latents in which this was done, too.
                t.latent = start.put_back(t.latent, t.branch.image, t.scheduler, noise, following)
        if call + 1 == merge_call:
            _join(whole, merges, parts)
            if keep_parts:
                _follow(whole, parts)
            else:
                active, batch = whole, None
        if observe is not None:
            report = StepReport(step, num_steps, timestep, _stack(whole), rows_done, rows_total, estimate)
            _put_back(whole, observe(report))
    latents = _stack(whole)
    ends = [{t.branch.trajectory: t.latent[0] for t in own} for own in parts] if keep_parts else []
    return SampleResult(latents, latents, num_steps, rows_done, False, ends)


def _trajectories(
    template: Scheduler,
    noisy: Tensor,
    merges: Sequence[Merge],
    generators: Sequence[torch.Generator] | None,
    options: dict[str, float],
) -> tuple[list[_Trajectory], list[list[_Trajectory]]]:
    """The whole scene of each image, and of each image its instances alone."""
    given = generators or ()
    draws = takes_generator(template)

    def trajectory(image: int, index: int, crop: Crop | None = None) -> _Trajectory:
        own, generator = copy.deepcopy(template), None
        if given:
            seed_noise(own, given[image], sum(g is given[image] for g in given[:image]))
            if draws:
                generator = copy_generator(given[image]) if index else given[image]
        return _Trajectory(Branch(image, index), noisy[image : image + 1], own, generator, options, crop)

    whole = [trajectory(image, 0) for image in range(len(noisy))]
    parts = [[trajectory(k, i, merge.crops.get(i)) for i in merge.instances] for k, merge in enumerate(merges)]
    return whole, parts or [[] for _ in whole]


def _join(whole: Sequence[_Trajectory], merges: Sequence[Merge], parts: Sequence[Sequence[_Trajectory]]) -> None:
    """Put the instances' latents into their scenes'."""
    for moving, merge, alone in zip(whole, merges, parts, strict=True):
        if alone:
            moving.replace(merge(moving.latent, {t.branch.trajectory: t.latent for t in alone}))


def _follow(whole: Sequence[_Trajectory], parts: Sequence[Sequence[_Trajectory]]) -> None:
    """Let the instances go on from the merged scene, in which each is as it was by itself."""
    for moving, alone in zip(whole, parts, strict=True):
        for part in alone:
            part.replace(part.latent if part.crop is None else part.crop.put(moving.latent, part.crop.cut(part.latent)))


def _advance(active: Sequence[_Trajectory], predicted: Tensor, timestep: Tensor) -> None:
    """Make one scheduler step of each trajectory; the instances of an image draw the noise its whole scene draws."""
    drawn = torch.empty(0)
    for row, moving in enumerate(active):  # a whole scene stands before its instances
        if moving.generator is not None and not moving.branch.trajectory:
            drawn = moving.generator.get_state()
        elif moving.generator is not None:
            moving.generator.set_state(drawn)
        moving.advance(predicted[row : row + 1], timestep)


def count_rows(
    scheduler: Scheduler,
    steps: int | Steps,
    merge_after: int,
    shares: Sequence[float],
    guidance_scale: float,
    *,
    ordered: int = 0,
    order_steps: int = 0,
    first: int = 0,
    negatives: int = 0,
    keep_parts: bool = False,
) -> float:
    """Network rows of a run, which its cost is proportional to.

    Args:
        scheduler: any stock scheduler; it is not changed.
        steps: the steps of the run, or how many.
        merge_after: steps before the merge.
        shares: for each image, the summed shares of the canvas that its instances run on alone; an instance on the
            whole canvas counts 1.
        guidance_scale: 1 or less = off, which halves the rows.
        ordered: images with order guidance.
        order_steps: steps in which it acts.
        first: the first step that is made.
        negatives: negative captions of instances.
        keep_parts: instances run to the end.
    """
    template = copy.deepcopy(scheduler)
    plan = Steps(steps) if isinstance(steps, int) else steps
    _, step_of_call = begin_at(template, plan.set_on(template), first)
    apart = len(step_of_call) if keep_parts else sum(step < merge_after for step in step_of_call)
    extra = ordered * sum(step < order_steps for step in step_of_call)
    extra += negatives * len(step_of_call) if is_guided(guidance_scale) else 0
    return (1 + is_guided(guidance_scale)) * sum(len(step_of_call) + share * apart for share in shares) + extra


def _stack(trajectories: Sequence[_Trajectory]) -> Tensor:
    return torch.cat([t.latent for t in trajectories])


def _put_back(trajectories: Sequence[_Trajectory], latents: Tensor | None) -> None:
    if latents is not None:
        for row, moving in enumerate(trajectories):
            # Callbacks hand back what they were given; a history is worth keeping where nothing was changed.
            if not torch.equal(latents[row : row + 1].to(moving.latent), moving.latent):
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
