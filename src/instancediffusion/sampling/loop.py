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
from instancediffusion.sampling.multi_instance import Crop, CropBatch, Merge
from instancediffusion.sampling.negatives import NegativeBatch, NegativeCaptions
from instancediffusion.sampling.noise import copy_generator
from instancediffusion.sampling.order_guidance import OrderBatch, OrderGuidance
from instancediffusion.sampling.schedulers import (
    Scheduler,
    Steps,
    clean_estimate,
    forget_sample,
    order_option,
    remembers_samples,
    seed_noise,
    step_options,
    steps_by_row,
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
        steps: the steps in which it acts, of those that are made, from 0; None = all. Outside of them the
            unconditional half is not computed (Kynkäänniemi et al. 2024).
        epoch: asked before each network call: when the number changes, the conditioning has changed, and is gathered
            anew.
    """

    scale: float | Callable[[], float] = 1.0
    rescaled: float = 0.0
    steps: range | None = None
    epoch: Callable[[], int] = lambda: 0

    def at(self, step: int) -> float:
        """The scale of the next network call, which is one of a step."""
        if self.steps is not None and step not in self.steps:
            return 1.0
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
class _Pack:
    """Trajectories that one scheduler steps as a batch. Lives for one call of `sample`."""

    branches: Sequence[Branch]
    latents: Tensor  # (T, C, H, W)
    scheduler: Scheduler
    generators: Sequence[torch.Generator]  # one for each row; empty = no noise is drawn
    options: dict[str, float]
    crops: Sequence[Crop | None]

    @property
    def images(self) -> list[int]:
        """The image of each row."""
        return [branch.image for branch in self.branches]

    @property
    def share(self) -> float:
        """Shares of the canvas that the network computes, summed."""
        size = (self.latents.shape[-2], self.latents.shape[-1])
        return sum(1 if crop is None else crop.share(size) for crop in self.crops)

    def advance(self, predictions: Tensor, timestep: Tensor) -> None:
        """Make one scheduler step; `predictions` are (T, C, H, W)."""
        extra: dict[str, Any] = {"generator": list(self.generators)} if self.generators else {}
        extra |= order_option(self.scheduler)
        self.latents = self.scheduler.step(predictions, timestep, self.latents, **self.options, **extra).prev_sample

    def replace(self, latents: Mapping[int, Tensor]) -> None:
        """Go on from other latents (C, H, W) in some rows, with the history as it is."""
        if latents:
            self.latents = torch.stack([latents.get(row, own).to(own) for row, own in enumerate(self.latents)])
            forget_sample(self.scheduler)


class _JointBatch:
    """Trajectories that step together: one bound batch for each size of what the network sees of them."""

    def __init__(
        self,
        denoiser: Denoiser,
        active: Sequence[_Pack],
        guidance_scale: float,
        rescaled: float,
        max_batch_rows: int,
        order: OrderGuidance | None,
        negatives: NegativeCaptions,
    ) -> None:
        latents = active[0].latents
        size, device = (latents.shape[-2], latents.shape[-1]), latents.device
        branches = [branch for pack in active for branch in pack.branches]
        crops = [crop for pack in active for crop in pack.crops]
        away = is_guided(guidance_scale) and negatives.rows > 0
        self._negatives = NegativeBatch(denoiser, negatives, guidance_scale, max_batch_rows, device) if away else None
        ordered = order is not None and order.images
        self._order = OrderBatch(denoiser, order, max_batch_rows, device) if order is not None and ordered else None
        groups: dict[tuple[int, ...] | None, list[int]] = {}
        for row, crop in enumerate(crops):  # the whole canvas comes first, since a whole scene does
            groups.setdefault(None if crop is None else tuple(crop.hold.shape), []).append(row)
        scene = {branch.image: row for row, branch in enumerate(branches) if branch.trajectory == 0}
        self._groups: list[tuple[Tensor, Tensor, CropBatch | None, GuidedBatch]] = []
        for rows in groups.values():
            own = [crop for row in rows if (crop := crops[row]) is not None]
            # What the bound on rows bounds is memory: a crop takes its share of a canvas.
            most = int(max_batch_rows / own[0].share(size)) if own else max_batch_rows
            self._groups.append(
                (
                    torch.tensor(rows, device=device),
                    torch.tensor([scene[branches[row].image] for row in rows], device=device),
                    CropBatch(own, size, device) if own else None,
                    GuidedBatch(denoiser, [branches[row] for row in rows], guidance_scale, most, rescaled),
                )
            )
        self._scenes = torch.tensor(list(scene.values()), device=device)
        self._rows = (1 + is_guided(guidance_scale)) * sum(pack.share for pack in active)
        self._rows += self._negatives.rows if self._negatives is not None else 0

    def rows(self, ordered: bool) -> float:
        """Network rows of a call, with order guidance or without."""
        return self._rows + (self._order.rows if ordered and self._order is not None else 0)

    def __call__(
        self, model_input: Tensor, channels: int, timestep: Tensor, grounding_scale: float, ordered: bool
    ) -> Tensor:
        """Predict on the whole canvas; outside its crop a trajectory has the prediction of its scene.

        Args:
            model_input: (T, C + E, H, W), the latents and what the network sees beside them.
            channels: C.
            timestep: 0-dim.
            grounding_scale: 0 to 1.
            ordered: order guidance acts.

        Returns:
            Guided predictions, (T, C, H, W) float32.
        """
        guided = torch.zeros_like(model_input[:, :channels], dtype=torch.float32)
        conditional, unconditional = torch.zeros_like(guided), torch.zeros_like(guided)
        for rows, scenes, crops, batch in self._groups:
            shown = model_input[rows]
            if crops is None:
                guided[rows], conditional[rows], unconditional[rows] = batch(shown, timestep, grounding_scale)
            else:
                found, _, _ = batch(crops.cut(shown), timestep, grounding_scale)
                guided[rows] = crops.put(guided[scenes], found)
        whole = self._scenes
        added = self._negatives
        if added is not None:
            guided[whole] += added(model_input[whole], unconditional[whole], timestep, grounding_scale)
        if ordered and self._order is not None:
            guided[whole] += self._order(model_input[whole], conditional[whole], timestep, grounding_scale)
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
    merge rule names, each alone; every trajectory has a scheduler history of its own, as a row of a batch that one
    scheduler steps. Then each image's latents are merged, and its whole scene goes on *with its own history*, which
    stems from before the merge (as published).

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
        max_batch_rows: most rows in one network call, guidance halves and trajectories counted; a row on a crop counts
            as its share of the canvas.
        observe: called after each step.
        should_stop: asked before each network call; True ends the run.

    Returns:
        The latents, float32 on the device of `noise`.
    """
    num_steps = len(grounding_scales)
    guidance = guidance_scale if isinstance(guidance_scale, Guidance) else Guidance(guidance_scale)
    template = copy.deepcopy(scheduler)
    # Schedulers look their tables up by timestep on the CPU; a timestep elsewhere would be waited for in each step.
    planned = (steps or Steps(num_steps + (start.step if start else 0))).set_on(template)
    timesteps, step_of_call = begin_at(template, planned, start.step if start else 0)
    merge_call = sum(step < merge_after for step in step_of_call) if merges else 0
    calls = len(step_of_call)
    joint_calls = calls if keep_parts and merges else merge_call
    noise = noise.float()
    noisy = noise * float(template.init_noise_sigma) if start is None else start.noisy(template, noise, timesteps[0])
    whole, parts = _packs(template, noisy, merges if joint_calls else (), generators, step_options(template, eta))
    active = [*whole, *parts]
    images, channels = len(noise), noise.shape[1]

    ordered_calls = 0 if order is None else sum(step < order.steps for step in step_of_call)
    shares = sum(pack.share for pack in parts)
    rows_total = _rows_of_calls(
        step_of_call,
        [is_guided(guidance.at(step)) for step in step_of_call],
        lambda call: images + shares * (call < joint_calls),
        lambda call: (0 if order is None else len(order.images)) * (call < ordered_calls),
        negatives.rows,
    )
    rows_done: float = 0
    batch: _JointBatch | None = None
    bound: tuple[float, int] | None = None
    estimate: Callable[[], Tensor] | None = None
    for call, timestep in enumerate(timesteps):
        if should_stop is not None and should_stop():
            latents = _stack(whole)
            return SampleResult(latents, estimate() if estimate else latents, step_of_call[call], rows_done, True)
        step = step_of_call[call]
        if batch is None or bound != (guidance.at(step), guidance.epoch()):
            bound = (guidance.at(step), guidance.epoch())
            batch = _JointBatch(denoiser, active, bound[0], guidance.rescaled, max_batch_rows, order, negatives)
        model_input = torch.cat([pack.scheduler.scale_model_input(pack.latents, timestep) for pack in active])
        seen = model_input if start is None else start.beside(model_input, [i for pack in active for i in pack.images])
        predicted = batch(seen, channels, timestep, grounding_scales[step], call < ordered_calls)
        rows_done += batch.rows(call < ordered_calls)
        _advance(whole, active[len(whole) :], predicted, timestep)
        estimate = _estimator(template, model_input[:images], predicted[:images], timestep)
        if call + 1 < calls and step_of_call[call + 1] == step:
            continue  # the step is half-way
        if start is not None:
            following = timesteps[call + 1] if call + 1 < calls else None
            for pack in active:
                # Its memory of samples stays: it is of latents in which this was done, too.
                pack.latents = start.put_back(pack.latents, pack.images, pack.scheduler, noise, following)
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
    ends: list[dict[int, Tensor]] = [{} for _ in range(images)] if keep_parts else []
    for pack in parts if keep_parts else ():
        for branch, latent in zip(pack.branches, pack.latents, strict=True):
            ends[branch.image][branch.trajectory] = latent
    return SampleResult(latents, latents, num_steps, rows_done, False, ends)


def _packs(
    template: Scheduler,
    noisy: Tensor,
    merges: Sequence[Merge],
    generators: Sequence[torch.Generator] | None,
    options: dict[str, float],
) -> tuple[list[_Pack], list[_Pack]]:
    """The whole scenes, in order, and the instances alone, image by image."""
    given = generators or ()

    def pack(rows: Sequence[tuple[int, int]]) -> _Pack:
        own, drawn = copy.deepcopy(template), []
        if given:
            # Images that share a generator have different noise.
            turns = [sum(g is given[image] for g in given[:image]) for image, _ in rows]
            seed_noise(own, [given[image] for image, _ in rows], turns)
        if given and takes_generator(template):
            drawn = [copy_generator(given[image]) if index else given[image] for image, index in rows]
        crops = [merges[image].crops.get(index) if index else None for image, index in rows]
        branches = [Branch(image, index) for image, index in rows]
        latents = noisy[[image for image, _ in rows]]
        return _Pack(branches, latents, own, drawn, options, crops)

    whole = [(image, 0) for image in range(len(noisy))]
    parts = [(image, index) for image, merge in enumerate(merges) for index in merge.instances]
    by_row = steps_by_row(template)
    # Images that share a generator draw from it in turn. And what a scheduler forgets, it forgets for all its rows.
    apart = not by_row or remembers_samples(template) or len({id(g) for g in given}) < len(given)
    return (
        [pack([row]) for row in whole] if apart else [pack(whole)],
        ([pack(parts)] if by_row else [pack([row]) for row in parts]) if parts else [],
    )


def _by_image(packs: Sequence[_Pack]) -> dict[int, dict[int, Tensor]]:
    """Latents (C, H, W) by image and trajectory."""
    found: dict[int, dict[int, Tensor]] = {}
    for pack in packs:
        for branch, latent in zip(pack.branches, pack.latents, strict=True):
            found.setdefault(branch.image, {})[branch.trajectory] = latent
    return found


def _join(whole: Sequence[_Pack], merges: Sequence[Merge], parts: Sequence[_Pack]) -> None:
    """Put the instances' latents into their scenes'."""
    alone = _by_image(parts)
    for pack in whole:
        rows = [(row, image) for row, image in enumerate(pack.images) if image in alone]
        pack.replace({row: merges[image](pack.latents[row], alone[image]) for row, image in rows})


def _follow(whole: Sequence[_Pack], parts: Sequence[_Pack]) -> None:
    """Let the instances go on from the merged scene, in which each is as it was by itself."""
    scenes = _by_image(whole)
    for pack in parts:
        cropped = [(row, crop) for row, crop in enumerate(pack.crops) if crop is not None]
        moved = dict(enumerate(pack.latents))
        for row, crop in cropped:
            moved[row] = crop.put(scenes[pack.images[row]][0], crop.cut(pack.latents[row]))
        pack.replace(moved)


def _advance(whole: Sequence[_Pack], parts: Sequence[_Pack], predicted: Tensor, timestep: Tensor) -> None:
    """Make one scheduler step of each trajectory; the instances of an image draw the noise its whole scene draws."""
    states: dict[int, Tensor] = {}
    done = 0
    for pack in whole:
        states |= {image: own.get_state() for image, own in zip(pack.images, pack.generators, strict=False)}
        pack.advance(predicted[done : done + len(pack.branches)], timestep)
        done += len(pack.branches)
    for pack in parts:
        for image, own in zip(pack.images, pack.generators, strict=False):
            own.set_state(states[image])
        pack.advance(predicted[done : done + len(pack.branches)], timestep)
        done += len(pack.branches)


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
        guided_steps: the steps with guidance, of those that are made; None = all.
    """
    template = copy.deepcopy(scheduler)
    plan = Steps(steps) if isinstance(steps, int) else steps
    _, step_of_call = begin_at(template, plan.set_on(template), first)
    guidance = Guidance(guidance_scale, steps=guided_steps)
    return _rows_of_calls(
        step_of_call,
        [is_guided(guidance.at(step)) for step in step_of_call],
        lambda call: len(shares) + sum(shares) * (keep_parts or step_of_call[call] < merge_after),
        lambda call: ordered * (step_of_call[call] < order_steps),
        negatives,
    )


def _rows_of_calls(
    step_of_call: Sequence[int],
    guided: Sequence[bool],
    trajectories: Callable[[int], float],
    swapped: Callable[[int], float],
    negatives: int,
) -> float:
    """Network rows of all calls: of each, its trajectories (twice with guidance) and what else it computes."""
    return sum(
        (1 + guided[call]) * trajectories(call) + swapped(call) + negatives * guided[call]
        for call in range(len(step_of_call))
    )


def _stack(packs: Sequence[_Pack]) -> Tensor:
    return torch.cat([pack.latents for pack in packs])


def _put_back(whole: Sequence[_Pack], latents: Tensor | None) -> None:
    if latents is None:
        return
    for pack in whole:
        # Callbacks hand back what they were given; a history is worth keeping where nothing was changed.
        given = {row: latents[image].to(pack.latents) for row, image in enumerate(pack.images)}
        pack.replace({row: value for row, value in given.items() if not torch.equal(value, pack.latents[row])})


def _estimator(scheduler: Scheduler, model_input: Tensor, predicted: Tensor, timestep: Tensor) -> Callable[[], Tensor]:
    """Put off the estimate of the whole scenes: few steps ask for it."""
    return lambda: clean_estimate(scheduler, model_input, predicted, timestep)
