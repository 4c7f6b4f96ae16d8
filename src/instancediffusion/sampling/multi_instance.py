"""Multi-instance Sampler: the sampling loop over whole scenes and per-instance branches, and the merge of the two.

For the first steps each instance is denoised in a branch of its own, with its caption as the prompt, beside the whole
scene; then the latents are merged and the whole scene goes on (InstanceDiffusion, Wang et al. 2024, section 3.4).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from instancediffusion.sampling.denoiser import Branch, Denoiser, Network
from instancediffusion.sampling.guidance import (
    ClassifierFreeGuidance,
    GuidedDenoiser,
    NegativeCaptions,
    OrderGuidance,
    Predictions,
    is_guided,
)
from instancediffusion.sampling.loop import Call, Moment, calls_of, sample
from instancediffusion.sampling.merges import Crop, CropBatch, Merge
from instancediffusion.sampling.schedulers import Scheduler, Steps, clean_estimate
from instancediffusion.sampling.start import Start, begin_at
from instancediffusion.sampling.trajectories import Trajectories


@dataclass(frozen=True)
class StepReport:
    """What an observer learns after each step.

    Attributes:
        step: index of the step just done, from 0.
        num_steps: steps of the run.
        timestep: 0-dim, the noise level the last network call was made at.
        latents: (B, C, H, W) float32, the whole-scene trajectories.
        estimate: computes the clean latents (B, C, H, W) the model expects at this point.
    """

    step: int
    num_steps: int
    timestep: Tensor
    latents: Tensor
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
        stopped: `should_stop` ended the run early.
        parts: for each image, by instance, the latents (C, H, W) of those that were asked to run to the end.
    """

    latents: Tensor
    estimate: Tensor
    steps_done: int
    stopped: bool
    parts: Sequence[Mapping[int, Tensor]] = field(default_factory=tuple)


def sample_multi_instance(
    denoiser: Callable[[Trajectories], Denoiser],
    scheduler: Scheduler,
    noise: Tensor,
    steps: Steps,
    *,
    merges: Sequence[Merge] = (),
    merge_after: int = 0,
    keep_parts: bool = False,
    start: Start | None = None,
    generators: Sequence[torch.Generator] = (),
    eta: float = 0.0,
    observe: Observer | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SampleResult:
    """Denoise a batch of images, with the Multi-instance Sampler if asked for.

    For the first `merge_after` steps `sample` runs every image's whole scene and, from the same noise, the instances
    that its merge rule names, each in a branch with a scheduler history of its own. Then each image's latents are
    merged, and `sample` goes on with the whole scenes *with their own histories*, which stem from before the merge (as
    published).

    Nothing is shared between images but the network calls they are batched in: an image in a batch differs from the
    same image by itself only by the rounding of those.

    Args:
        denoiser: makes the denoiser of the trajectories of a stage, such as `Guidance.denoiser` of a network.
        scheduler: any stock diffusers scheduler; only copies of it are used.
        noise: (B, C, H, W) standard normal start noise, on the device to sample on.
        steps: the steps of the schedule.
        merges: the merge rule of each image; empty = none.
        merge_after: number of steps before the merge; 0 = no per-instance branches are run.
        keep_parts: the instances run on to the end, each on its crop, after the merge from the merged scene round it.
        start: pictures to go on from; the first `start.step` steps of the schedule are then left out.
        generators: see `Trajectories`.
        eta: see `Trajectories`.
        observe: called after each step.
        should_stop: asked before each network call; True ends the run.

    Returns:
        The latents, float32 on the device of `noise`.
    """
    template, first = copy.deepcopy(scheduler), 0 if start is None else start.step
    # Schedulers look their tables up by timestep on the CPU; a timestep elsewhere would be waited for in each step.
    num_steps = steps.set_on(template) - first
    calls = calls_of(*begin_at(template, num_steps + first, first))
    merge_call = sum(call.step < merge_after for call in calls) if merges else 0
    branched = len(calls) if keep_parts and merges else merge_call
    noise = noise.float()
    trajectories = Trajectories(template, len(noise), merges if branched else (), generators, eta)
    noisy = noise * float(template.init_noise_sigma)
    if start is not None:
        noisy = start.noisy(template, noise, calls[0].timestep)
    run = _Run(template, noise, calls, num_steps, merges, merge_call, keep_parts, start, observe, should_stop)
    latents = run.stage(denoiser, trajectories, noisy[trajectories.images], calls[:branched])
    latents = run.stage(denoiser, trajectories.scenes(), latents, calls[branched:])
    scenes = latents[: len(noise)]
    if run.stopped:
        return SampleResult(scenes, run.estimate(run.last) if run.last else scenes, calls[run.made].step, True)
    ends: list[dict[int, Tensor]] = [{} for _ in noise] if keep_parts else []
    for branch, latent in zip(trajectories.branches, latents, strict=False):
        if keep_parts and branch.trajectory:
            ends[branch.image][branch.trajectory] = latent
    return SampleResult(scenes, scenes, num_steps, False, ends)


@dataclass
class _Run:
    """What happens between the network calls of a run; lives for one. Arguments as of `sample_multi_instance`."""

    template: Scheduler
    noise: Tensor
    calls: Sequence[Call]
    num_steps: int
    merges: Sequence[Merge]
    merge_call: int
    keep_parts: bool
    start: Start | None
    observe: Observer | None
    should_stop: Callable[[], bool] | None
    made: int = 0
    last: Moment | None = None
    stopped: bool = False

    def stage(
        self,
        denoiser: Callable[[Trajectories], Denoiser],
        trajectories: Trajectories,
        latents: Tensor,
        calls: Sequence[Call],
    ) -> Tensor:
        """Make some calls for trajectories that begin with those of `latents`."""
        if not calls:
            return latents
        own = denoiser(trajectories)
        if self.start is not None:
            own = self.start.seen_by(own, trajectories.images)
        return sample(
            own,
            trajectories,
            latents[: len(trajectories.images)],
            calls=calls,
            callback=lambda moment: self.after(moment, trajectories),
            should_stop=self.stop,
        )

    def stop(self) -> bool:
        """Whether to end the run."""
        self.stopped = self.stopped or (self.should_stop is not None and self.should_stop())
        return self.stopped

    def after(self, moment: Moment, own: Trajectories) -> Tensor | None:
        """After a call: what is kept of pictures, the merge, the observer."""
        self.made, self.last = self.made + 1, moment
        if not moment.call.ends_step:
            return None
        latents = moment.latents
        if self.start is not None:
            # What remembers samples goes on remembering: they are of latents in which this was done, too.
            following = self.calls[self.made].timestep if self.made < len(self.calls) else None
            latents = self.start.put_back(latents, own.images, own, self.noise, following)
        if self.made == self.merge_call:
            latents = _merged(own, latents, self.merges, self.keep_parts)
        if self.observe is None:
            return latents
        call, scenes = moment.call, latents[: len(self.noise)]
        replaced = self.observe(
            StepReport(call.step, self.num_steps, call.timestep, scenes, partial(self.estimate, moment))
        )
        return latents if replaced is None else _changed(own, latents, replaced.to(latents))

    def estimate(self, moment: Moment) -> Tensor:
        """The clean latents that a call's predictions for the whole scenes stand for."""
        images = len(self.noise)
        return clean_estimate(self.template, moment.seen[:images], moment.predicted[:images], moment.call.timestep)


def _merged(own: Trajectories, latents: Tensor, merges: Sequence[Merge], follow: bool) -> Tensor:
    """Put the instances' latents into their scenes'; each then goes on as it was by itself, if they `follow`."""
    by_image: dict[int, dict[int, Tensor]] = {}
    for branch, latent in zip(own.branches, latents, strict=True):
        if branch.trajectory:
            by_image.setdefault(branch.image, {})[branch.trajectory] = latent
    moved = {image: merges[image](latents[image], parts) for image, parts in by_image.items()}
    for row, (image, crop) in enumerate(zip(own.images, own.crops, strict=True)):
        if follow and own.branches[row].trajectory:
            moved[row] = latents[row] if crop is None else crop.put(moved[image], crop.cut(latents[row]))
    own.forget(moved)
    return torch.stack([moved.get(row, latent).to(latent) for row, latent in enumerate(latents)])


def _changed(own: Trajectories, latents: Tensor, scenes: Tensor) -> Tensor:
    """Latents with other ones of the whole scenes."""
    # Callbacks hand back what they were given; a history is worth keeping where nothing was changed.
    own.forget([row for row, latent in enumerate(scenes) if not torch.equal(latent, latents[row])])
    return torch.cat([scenes, latents[len(scenes) :]])


class OnCrops(GuidedDenoiser):
    """A batch some elements of which are computed on a part of the canvas, and are their scene's everywhere else.

    Args:
        guided: makes the denoiser of some branches that calls its network with at most so many of them.
        trajectories: the batch.
        max_rows: most batch elements in one network call; one on a crop counts as its fraction of the canvas.
    """

    def __init__(
        self, guided: Callable[[Sequence[Branch], int], GuidedDenoiser], trajectories: Trajectories, max_rows: int
    ) -> None:
        self._guided, self._max_rows = guided, max_rows
        self._branches, self._crops = trajectories.branches, trajectories.crops
        rows = [row for row, crop in enumerate(self._crops) if crop is None]
        self._rows, self._whole = torch.tensor(rows), guided([self._branches[row] for row in rows], max_rows)
        self._groups: list[tuple[Tensor, Tensor, CropBatch, GuidedDenoiser]] | None = None

    def _by_size(
        self, size: tuple[int, int], device: torch.device
    ) -> list[tuple[Tensor, Tensor, CropBatch, GuidedDenoiser]]:
        """Of the crops of each size: their batch indices, those of their scenes, what cuts them, and their denoiser."""
        cropped: dict[tuple[int, ...], list[tuple[int, Crop]]] = {}
        for row, crop in enumerate(self._crops):
            if crop is not None:
                cropped.setdefault(tuple(crop.hold.shape), []).append((row, crop))
        groups = []
        for own in cropped.values():
            branches = [self._branches[row] for row, _ in own]
            # The bound on the batch is one on memory: a crop takes its fraction of a canvas.
            denoiser = self._guided(branches, int(self._max_rows / own[0][1].share(size)))
            rows = torch.tensor([row for row, _ in own], device=device)
            scenes = torch.tensor([branch.image for branch in branches], device=device)
            groups.append((rows, scenes, CropBatch([crop for _, crop in own], size, device), denoiser))
        return groups

    def predict(self, sample: Tensor, timestep: Tensor, step: int) -> Predictions:
        """Predict on the whole canvas; both branches of the guidance are those of elements computed on all of it."""
        if self._groups is None:
            self._groups = self._by_size((sample.shape[-2], sample.shape[-1]), sample.device)
            self._rows = self._rows.to(sample.device)
        found = self._whole.predict(sample[self._rows], timestep, step)
        guided = found.guided.new_zeros(len(sample), *found.guided.shape[1:])
        guided[self._rows] = found.guided
        for rows, scenes, crops, denoiser in self._groups:
            own = denoiser.predict(crops.cut(sample[rows]), timestep, step)
            guided[rows] = crops.put(guided[scenes], own.guided)
        return Predictions(guided, found.conditional, found.unconditional, found.scale)


@dataclass(frozen=True)
class Guidance:
    """How the trajectories of a run are guided; `denoiser` puts the wrappers round each other.

    Attributes:
        scale: see `ClassifierFreeGuidance`, as for the next two.
        interval: the steps of it.
        rescale: weight of the rescaled contrast.
        negatives: see `NegativeCaptions`; none for per-instance branches, which have their own.
        order: see `OrderGuidance`, as for the next two: (B, H, W) where it acts; None = nowhere.
        order_scale: strength.
        order_steps: steps it acts in.
        max_rows: most batch elements in one network call, branches of the guidance and trajectories counted; one on a
            crop counts as its fraction of the canvas.
    """

    scale: float | Callable[[], float] = 1.0
    interval: range | None = None
    rescale: float = 0.0
    negatives: Sequence[Mapping[int, Tensor]] = ()
    order: Tensor | None = None
    order_scale: float = 0.0
    order_steps: int = 0
    max_rows: int = 8

    def denoiser(self, network: Network, trajectories: Trajectories) -> Denoiser:
        """The denoiser of trajectories."""

        def classifier_free(branches: Sequence[Branch], max_rows: int) -> GuidedDenoiser:
            return ClassifierFreeGuidance(
                network, branches, self.scale, interval=self.interval, rescale=self.rescale, max_rows=max_rows
            )

        cropped = any(crop is not None for crop in trajectories.crops)
        found = (
            OnCrops(classifier_free, trajectories, self.max_rows)
            if cropped
            else classifier_free(trajectories.branches, self.max_rows)
        )
        if any(self.negatives):
            found = NegativeCaptions(found, network, self.negatives, self.max_rows)
        if self.order is not None and self.order_steps and self.order.any():
            found = OrderGuidance(
                found, network, self.order, self.order_scale, steps=self.order_steps, max_rows=self.max_rows
            )
        return found


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
    guided_steps: range | None = None,
) -> float:
    """Network function evaluations (NFE) of a run, counted by batch element.

    Args:
        scheduler: any stock scheduler; it is not changed.
        steps: the steps of the run, or how many.
        merge_after: steps before the merge.
        shares: for each image, the summed fractions of the canvas that its per-instance branches run on; a branch on
            the whole canvas counts 1.
        guidance_scale: 1 or less = off, which halves the NFE.
        ordered: images with order guidance.
        order_steps: steps in which it acts.
        first: the first step that is made.
        negatives: negative captions of instances.
        keep_parts: instances run to the end.
        guided_steps: the steps with guidance, of those that are made; None = all.
    """
    template = copy.deepcopy(scheduler)
    plan = Steps(steps) if isinstance(steps, int) else steps
    _, step_of_call = begin_at(template, plan.set_on(template), first)
    evaluations: float = 0
    for step in step_of_call:
        guided = is_guided(guidance_scale) and (guided_steps is None or step in guided_steps)
        trajectories = len(shares) + sum(shares) * (keep_parts or step < merge_after)
        evaluations += (1 + guided) * trajectories + ordered * (step < order_steps) + negatives * guided
    return evaluations
