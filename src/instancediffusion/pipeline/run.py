"""The work between checked requests and finished latents."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from instancediffusion.adapter.backbones import core_network
from instancediffusion.adapter.deep_cache import unfit
from instancediffusion.choices import MERGE_RULES
from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.text import TextBank
from instancediffusion.conditioning.visibility import reversed_order, stated_overlaps
from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.pipeline.compatibility import latent_channels
from instancediffusion.pipeline.control import Control
from instancediffusion.pipeline.denoiser import Captioned, Contexts, NetworkDenoiser
from instancediffusion.pipeline.encoding import lora_scaled
from instancediffusion.pipeline.framing import WHOLE_CANVAS, BoxUnit
from instancediffusion.pipeline.given import GivenPicture, start_of
from instancediffusion.pipeline.image_prompts import UNetInputs
from instancediffusion.pipeline.layers import caption_weights, latent_locations, shown_regions
from instancediffusion.pipeline.merging import MergeRule, merge_rule, steps_before_merge
from instancediffusion.pipeline.requests import ImageRequest
from instancediffusion.pipeline.scene_bank import SceneBank, build_scene_bank
from instancediffusion.pipeline.steering import Steering
from instancediffusion.pipeline.watch import Watch
from instancediffusion.pipeline.xl import without_text
from instancediffusion.sampling import (
    Branch,
    Guidance,
    Merge,
    Scheduler,
    Steps,
    build_scheduler,
    count_rows,
    generators_for,
    grounding_schedule,
    is_guided,
    sample_multi_instance,
    start_noise,
    steps_in_fraction,
    steps_made,
)
from instancediffusion.scene import Scene
from instancediffusion.settings import GenerationSettings


def steps_of(settings: GenerationSettings) -> Steps:
    """The steps of a run."""
    return Steps(settings.num_inference_steps, settings.timesteps, settings.sigmas)


def scheduler_for(settings: GenerationSettings, model_scheduler: Scheduler, *, flow: bool = False) -> Scheduler:
    """The scheduler of a run.

    Raises:
        SettingsError: it does not fit the model, has fewer steps than are asked for, or takes no such list of steps.
    """
    scheduler = build_scheduler(settings.scheduler, model_scheduler, flow=flow)
    if settings.timesteps is not None or settings.sigmas is not None:
        steps_of(settings).set_on(copy.deepcopy(scheduler))
        return scheduler
    most = scheduler.config.get("original_inference_steps") or scheduler.config.num_train_timesteps
    if settings.num_inference_steps > most:
        raise SettingsError(
            f"num_inference_steps: {settings.num_inference_steps} is more than the {most} steps of "
            f"{type(scheduler).__name__}; use {most} or fewer"
        )
    return scheduler


def check_noise(given: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise `SettingsError` unless there is one start noise of the right shape for each image."""
    if not all(isinstance(value, Tensor) for value in given):
        raise SettingsError("latents: give a tensor (B, C, h, w), or one of (C, h, w) for each image")
    if len(given) != len(shapes):
        raise SettingsError(f"latents: {len(given)} for {len(shapes)} images; give one for each image")
    for row, (value, shape) in enumerate(zip(given, shapes, strict=True)):
        if tuple(value.shape) != shape:
            raise SettingsError(f"latents[{row}]: its shape is {tuple(value.shape)}, this image needs {shape}")


@dataclass(frozen=True)
class Prompts:
    """Prompts that a call gives in place of, or beside, those of its scenes.

    Attributes:
        texts: for each scene, its prompt; empty where a scene only names what stands in its place.
        embeds: (S, L, D) for each scene its prompt, encoded already; None encodes `texts`.
        negative_embeds: (S or B, L, D) for each scene or image, the same for what is not to be shown.
        pooled: (S, P) with XL, the projected text that goes with each of `embeds`.
        negative_pooled: (S or B, P) the same for `negative_embeds`.
        lora_scale: weight of the text encoder's LoRA layers; None leaves them as they are.
    """

    texts: Sequence[str]
    embeds: Tensor | None = None
    negative_embeds: Tensor | None = None
    pooled: Tensor | None = None
    negative_pooled: Tensor | None = None
    lora_scale: float | None = None


@dataclass
class Run:
    """The images of one call on their way to latents; nothing of it outlives the call.

    Attributes:
        pipeline: gives the components and the device.
        scenes: the scenes of the call.
        requests: its images.
        prompts: prompts of the scenes.
        settings: its settings.
        scheduler: a scheduler of the right kind, without history.
        latent_px: image pixels in the side of one latent pixel.
        given: start noise of each image in place of its seed's, or None.
        watch: progress and clocks.
        inputs: what else the UNet is given.
        attention: further `cross_attention_kwargs`.
        pictures: for each image the one it goes on from; empty = noise alone.
        control: ControlNets and T2I-Adapters.
        keep_parts: instances run to the end on layers of their own, and one more without any instance.
        parts: then, by image, the clean latents (C, h, w) of each layer, by instance from 1; 0 = without instances.
    """

    pipeline: Any
    scenes: Sequence[Scene]
    requests: Sequence[ImageRequest]
    prompts: Prompts
    settings: GenerationSettings
    scheduler: Scheduler
    latent_px: int
    given: Sequence[Tensor] | None
    watch: Watch
    inputs: UNetInputs = field(default_factory=UNetInputs)
    attention: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[GivenPicture] = ()
    control: Control = field(default_factory=Control)
    keep_parts: bool = False
    parts: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    _frames: dict[tuple[int, int], BoxUnit] = field(default_factory=dict)
    _away_rows: dict[tuple[int, int], int] = field(default_factory=dict)
    _locations: dict[tuple[int, tuple[int, int]], LocationTensors] = field(default_factory=dict)

    def latents(self) -> list[tuple[Tensor, Tensor]]:
        """Sample every image.

        Returns:
            For each, its latents and the model's estimate of the clean ones, (C, h, w) float32 on the CPU.
        """
        merge_after = steps_before_merge(self.settings, self.steps)
        rules = [
            merge_rule(
                r.scene, self.settings, self._latent_size(r), self._factor, locate=self._located, ground=self.keep_parts
            )
            for r in self.requests
        ]
        alone: list[dict[int, BoxUnit]] = [{} for _ in self.scenes]
        areas = [0.0 for _ in self.requests]
        for r in self.requests if merge_after or self.keep_parts else ():
            crops, size = rules[r.index].crops, self._latent_size(r)
            frames = {i: crops[i].window.unit(size) if i in crops else WHOLE_CANVAS for i in rules[r.index].instances}
            alone[r.scene_row] = {i: frame for i, frame in frames.items() if i <= len(r.scene.instances)}
            areas[r.index] = sum(crops[i].share(size) if i in crops else 1 for i in frames)
        regions = self._order_regions()
        self._frames = {(r.index, number): frame for r in self.requests for number, frame in alone[r.scene_row].items()}
        ordered = {r.scene_row for r in self.requests if regions[r.index].any()}
        bank, positive, negative = self._bank(alone, sorted(ordered))
        total = count_rows(
            self.scheduler,
            steps_of(self.settings),
            merge_after,
            areas,
            1.0 if self._distilled else self.settings.guidance_scale,
            ordered=sum(bool(region.any()) for region in regions),
            order_steps=self._order_steps,
            first=self.first,
            negatives=sum(len(own) for own in self._away.values()),
            keep_parts=self.keep_parts,
            guided_steps=self._guided_steps,
        )
        self._check_reuse(alone)
        if self._regional and merge_after:
            self._check_per_map(True)
        if self.settings.token_merging:
            self._check_per_map(False)
        dtype, projected = self.pipeline.unet.dtype, bank.texts.projected
        contexts = Contexts(
            bank.texts.contexts.to(dtype), bank.texts.lengths, None if projected is None else projected.to(dtype)
        )
        noise = self._noise()
        finished: dict[int, tuple[Tensor, Tensor]] = {}
        timed, scheduled = self.watch.timed("sampling"), self._timesteps_set()
        with timed, scheduled, self.pipeline.progress_bar(total=total) as self.watch.bar:
            for size in dict.fromkeys(r.size for r in self.requests):
                group = [r for r in self.requests if r.size == size]
                steering = Steering(
                    contexts,
                    [positive[r.index] for r in group],
                    [negative[r.index] for r in group],
                    self.settings.guidance_scale,
                    self._distilled,
                )
                finished |= self._sample(
                    group,
                    bank,
                    steering,
                    noise,
                    [rules[r.index] for r in group] if merge_after or self.keep_parts else [],
                    merge_after,
                    [regions[r.index] for r in group],
                )
        return [finished[r.index] for r in self.requests]

    @property
    def first(self) -> int:
        """The first step of the schedule that is made."""
        settings = self.settings
        if not self.pictures:
            return 0
        whole = 1.0 if self.pictures[0].mask is not None else 0.8
        strength = whole if settings.strength is None else settings.strength
        return settings.num_inference_steps - steps_made(strength, settings.num_inference_steps)

    @property
    def steps(self) -> int:
        """The number of steps that are made."""
        return self.settings.num_inference_steps - self.first

    def _located(self, scene: Scene, size: tuple[int, int]) -> LocationTensors:
        """Where the instances of a scene are on latents of a size; computed once for both."""
        key = (id(scene), size)
        if key not in self._locations:
            self._locations[key] = latent_locations(scene, size)
        return self._locations[key]

    def _latent_size(self, request: ImageRequest) -> tuple[int, int]:
        return request.size[0] // self.latent_px, request.size[1] // self.latent_px

    @property
    def _factor(self) -> int:
        return int(self.pipeline.backbone.latent_multiple(self.pipeline.unet))

    @property
    def _regional(self) -> bool:
        """Whether captions are read where their instances are, in place of branches for each."""
        rule: MergeRule = MERGE_RULES[self.settings.mis_merge]
        return rule.regional and not self.keep_parts

    def _check_per_map(self, regional: bool) -> None:
        """Refuse what acts at single visual tokens where it cannot."""
        field, fix = ("mis_merge", "use 'layered', or mis_fraction=0") if regional else ("token_merging", "set it to 0")
        reason = ""
        if not self.pipeline.backbone.per_map:
            reason = f"the attention of {type(core_network(self.pipeline.unet)).__name__} has no part for it"
        elif regional and self.inputs.references:
            reason = "references of single instances have regions of their own in the same cross-attention"
        if reason:
            raise SettingsError(f"{field}: {getattr(self.settings, field)!r} is not to be had here: {reason}; {fix}")

    @property
    def _order_steps(self) -> int:
        settings = self.settings
        if settings.order_guidance_scale == 0:
            return 0
        return steps_in_fraction(settings.order_guidance_fraction, self.steps)

    @property
    def _guided_steps(self) -> range | None:
        """The steps with guidance, of those that are made; None = all."""
        start, end = self.settings.guidance_start, self.settings.guidance_end
        if (start, end) == (0, 1):
            return None
        return range(steps_in_fraction(start, self.steps), steps_in_fraction(end, self.steps))

    def _order_regions(self) -> list[Tensor]:
        """Where order guidance acts on each image; nowhere if it is off."""
        sizes = [self._latent_size(r) for r in self.requests]
        if self._order_steps == 0:
            return [torch.zeros(size) for size in sizes]
        return [
            stated_overlaps(self._located(r.scene, size), size)[0] for r, size in zip(self.requests, sizes, strict=True)
        ]

    def _check_reuse(self, alone: Sequence[Mapping[int, BoxUnit]]) -> None:
        """Refuse what keeps features of one network call for the next, unless all calls are of the same batch."""
        core = core_network(self.pipeline.unet)
        reason = unfit(self.pipeline.unet, core) if self.settings.cache_interval > 1 else ""
        if reason:
            raise SettingsError(
                f"cache_interval: some calls need parts of the UNet alone, and {reason}; set it to 1, or compile its "
                "blocks alone, by unet.compile_repeated_blocks()"
            )
        wrapper = getattr(vars(core).get("forward"), "__module__", "")
        if not wrapper.startswith("DeepCache"):
            return
        rows = len(self.requests) * (1 + (is_guided(self.settings.guidance_scale) and not self._distilled))
        reasons = {
            "mis_fraction=0": any(alone),
            "order_guidance_scale=0": self._order_steps > 0,
            "guidance_start=0, guidance_end=1": self._guided_steps is not None and rows > len(self.requests),
            f"max_batch_rows={rows}": rows > self.settings.max_batch_rows,
            "pictures of one size": len({r.size for r in self.requests}) > 1,
        }
        needed = [remedy for remedy, applies in reasons.items() if applies]
        if needed:
            raise SettingsError(
                "unet: DeepCache reuses features of one network call in the next, and here calls differ; "
                f"it needs {', '.join(needed)}"
            )

    @contextmanager
    def _timesteps_set(self) -> Iterator[None]:
        """Let the pipeline's own scheduler show the timesteps of the run, for helpers that look them up there."""
        own, running = self.pipeline.scheduler, copy.deepcopy(self.scheduler)
        steps_of(self.settings).set_on(running)
        before = own.timesteps
        own.timesteps = running.timesteps
        try:
            yield
        finally:
            own.timesteps = before

    @property
    def _distilled(self) -> bool:
        return self.inputs.guidance is not None

    def _bank(
        self, alone: Sequence[dict[int, BoxUnit]], swapped: Sequence[int]
    ) -> tuple[SceneBank, list[int], list[int]]:
        """Groundings and contexts, and for each image the rows of its prompt and its negative prompt."""
        with self.watch.timed("text"):
            texts, positive, negative = self._texts()
            texts = self._with_negative_captions(texts)
        with self.watch.timed("grounding"):
            bank = build_scene_bank(
                self.scenes,
                alone,
                texts,
                self.pipeline.adapter,
                instance_mask=self.settings.instance_mask,
                keep_groups=self.settings.absent_locations == "published",
                segmentation_order=self.settings.segmentation_order,
                max_rows=self.settings.max_batch_rows,
                swapped=swapped,
            )
        return bank, positive, negative

    def _texts(self) -> tuple[TextBank, list[int], list[int]]:
        asked, skip = self.prompts, self.settings.clip_skip
        asked_rows = [r.scene_row for r in self.requests]
        captions = [instance.caption for scene in self.scenes for instance in scene.instances]
        prompts = [] if asked.embeds is not None else [asked.texts[row] for row in asked_rows]
        negatives = [] if asked.negative_embeds is not None else [r.negative_prompt for r in self.requests]
        if self.pipeline.text_encoder is None:
            self._check_without_encoder(captions)
            negatives = []
        # Stable Diffusion pipelines skip layers for prompts, and not for negative prompts.
        bank = self._encoded([*prompts, *captions, *([] if skip else negatives)], captions, skip)
        positive = [bank.row[text] for text in prompts]
        if asked.embeds is not None:
            bank, rows = bank.with_contexts(list(asked.embeds), asked.pooled)
            positive = [rows[row] for row in asked_rows]
        if asked.negative_embeds is not None:
            bank, rows = bank.with_contexts(list(asked.negative_embeds), asked.negative_pooled)
            each = len(rows) == len(self.requests)
            return bank, positive, [rows[k if each else row] for k, row in enumerate(asked_rows)]
        if not negatives:  # no guidance, and no text encoder
            return bank, positive, positive
        if skip:
            own = self._encoded(negatives, (), None)
            found = [own.contexts[row, : own.lengths[row]] for row in own.row.values()]
            bank, rows = bank.with_contexts(found, own.projected)
            row_of = dict(zip(own.row, rows, strict=True))
        else:
            row_of = bank.row
        bank, nothing = without_text(bank, self.pipeline.config.get("force_zeros_for_empty_prompt", True))
        return bank, positive, [row_of[text] if text or nothing is None else nothing for text in negatives]

    @property
    def _away(self) -> dict[tuple[int, int], str]:
        """By image and instance, negative captions, and with them the picture's; none without guidance."""
        if self._distilled or not is_guided(self.settings.guidance_scale):
            return {}
        return {
            (r.index, number): ", ".join(text for text in (instance.negative, r.negative_prompt) if text)
            for r in self.requests
            for number, instance in enumerate(r.scene.instances, 1)
            if instance.negative
        }

    def _with_negative_captions(self, bank: TextBank) -> TextBank:
        texts = list(dict.fromkeys(self._away.values()))
        if not texts:
            return bank
        own = self._encoded(texts, (), None)
        found = [own.contexts[own.row[text], : own.lengths[own.row[text]]] for text in texts]
        projected = None if own.projected is None else own.projected[[own.row[text] for text in texts]]
        bank, rows = bank.with_contexts(found, projected)
        row_of = dict(zip(texts, rows, strict=True))
        self._away_rows = {key: row_of[text] for key, text in self._away.items()}
        return bank

    def _negative_captions(self, group: Sequence[ImageRequest]) -> list[dict[int, Tensor]]:
        """Where they act: where the instance is visible. Weights of several sum to 1 at most."""
        where: list[dict[int, Tensor]] = []
        for r in group:
            numbers = [number for image, number in self._away if image == r.index]
            size = self._latent_size(r)
            shown = shown_regions(self._located(r.scene, size), size) if numbers else torch.zeros(0)
            total = sum((shown[number - 1] for number in numbers), torch.zeros(())).clamp(min=1)
            where.append({number: shown[number - 1] / total for number in numbers})
        return where

    def _encoded(self, texts: Sequence[str], captions: Sequence[str], clip_skip: int | None) -> TextBank:
        pipeline = self.pipeline
        if not texts:
            backbone, unet, width = pipeline.backbone, pipeline.unet, int(pipeline.adapter.config.caption_dim)
            nothing = torch.zeros(0, 0, backbone.context_dim(unet), device=unet.device)
            pooled = backbone.pooled_dim(unet)
            projected = None if pooled is None else nothing.new_zeros(0, pooled)
            return TextBank(nothing, (), nothing.new_zeros(0, width), {}, projected)
        with lora_scaled(pipeline.text_encoder, self.prompts.lora_scale):
            found: TextBank = pipeline.backbone.encode(pipeline, texts, captions=captions, clip_skip=clip_skip)
            return found

    def _check_without_encoder(self, captions: Sequence[str]) -> None:
        """Raise `ModelError` if this call needs the text encoder that is not there."""
        if captions:
            raise ModelError("text_encoder: there is none, and the captions of instances need one")
        if self.prompts.embeds is None:
            raise ModelError("text_encoder: there is none; give prompt_embeds")
        guided = is_guided(self.settings.guidance_scale) and not self._distilled
        if guided and self.prompts.negative_embeds is None:
            raise ModelError("text_encoder: there is none; give negative_prompt_embeds, or guidance_scale=1")

    def _noise(self) -> dict[int, Tensor]:
        """By image, start noise (C, h, w) that was given, or comes from generators that were given."""
        if self.given is not None:
            return {r.index: self.given[r.index].detach().float().cpu() for r in self.requests}
        channels = latent_channels(self.pipeline.unet)
        found: dict[int, Tensor] = {}
        for r in self.requests:
            if r.generator is not None:
                shape = (channels, *self._latent_size(r))
                found[r.index] = torch.randn(shape, generator=r.generator, device=r.generator.device).cpu()
        return found

    def _sample(
        self,
        group: Sequence[ImageRequest],
        bank: SceneBank,
        steering: Steering,
        given: Mapping[int, Tensor],
        merges: Sequence[Merge],
        merge_after: int,
        regions: Sequence[Tensor],
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Sample images of one size together; returns latents and estimates by the index of the image."""
        pipeline, settings = self.pipeline, self.settings
        seeded = generators_for([r.seed for r in group])
        generators = [own if r.generator is None else r.generator for r, own in zip(group, seeded, strict=True)]
        # Drawn also where it is replaced, so that a scheduler's own noise does not depend on where the start is from.
        own_noise = start_noise(seeded, (latent_channels(pipeline.unet), *self._latent_size(group[0])))
        noise = torch.stack([given.get(r.index, own) for r, own in zip(group, own_noise, strict=True)])
        indices = [r.index for r in group]
        control = replace(self.control, steps=self.steps)

        def frames(branches: Sequence[Branch]) -> list[BoxUnit]:
            return [self._frames.get((indices[b.image], b.trajectory), WHOLE_CANVAS) for b in branches]

        def captioned(branch: Branch) -> Captioned:
            """Captions of the whole scene; those of nothing for branches that see no instance."""
            scene = group[branch.image].scene
            own = scene.instances if branch.conditional else ()

            def weights(size: tuple[int, int]) -> Tensor:
                if not own:
                    return torch.zeros(0, *size)
                located = self._located(scene, self._latent_size(group[0]))
                turned = torch.tensor([branch.swapped], device=located.device)
                return caption_weights(reversed_order(located, turned), size)

            return [bank.texts.row[instance.caption] for instance in own], weights

        def rows_of(branch: Branch) -> tuple[int, int]:
            request = group[branch.image]
            context, grounding = bank.rows(request.scene_row, steering.prompts(branch.image), branch)
            if not branch.conditional:
                number = branch.negative or branch.trajectory
                context = self._away_rows.get((request.index, number), context)
            return context, grounding

        network = NetworkDenoiser(
            pipeline.unet,
            steering.contexts,
            bank.groundings,
            rows_of,
            grounding_scales=grounding_schedule(
                steps_of(settings).set_on(copy.deepcopy(self.scheduler)) - self.first,
                settings.grounding_fraction,
                decay_fraction=settings.grounding_decay_fraction,
                rounding=settings.step_rounding,
            ),
            attention=self.attention,
            extras=lambda branches: self.inputs.of(branches, indices, frames(branches)),
            size=group[0].size,
            control=(lambda branches: control.bind([indices[b.image] for b in branches], frames(branches)))
            if control
            else None,
            cache_interval=settings.cache_interval,
            canvas=self._latent_size(group[0]),
            captions=captioned if self._regional else None,
            caption_steps=merge_after,
            token_merging=settings.token_merging,
        )
        guidance = Guidance(
            steering.guidance_scale,
            self._guided_steps,
            settings.guidance_rescale,
            self._negative_captions(group),
            torch.stack(list(regions)),
            settings.order_guidance_scale,
            self._order_steps,
            settings.max_batch_rows,
        )
        result = sample_multi_instance(
            partial(guidance.denoiser, network),
            self.scheduler,
            noise.to(pipeline._execution_device),
            steps_of(settings),
            merges=merges,
            merge_after=merge_after,
            keep_parts=self.keep_parts,
            start=start_of([self.pictures[r.index] for r in group], self.first) if self.pictures else None,
            generators=generators,
            eta=settings.eta,
            observe=lambda report: self.watch.step(report, steering, network.rows_done),
            should_stop=lambda: bool(pipeline.interrupt),
        )
        self.watch.end_group(result, network.rows_done)
        for r, own in zip(group, result.parts, strict=False):
            count = len(r.scene.instances)
            self.parts[r.index] = {number if number <= count else 0: latent.cpu() for number, latent in own.items()}
        ends = zip(group, result.latents.cpu(), result.estimate.cpu(), strict=True)
        return {r.index: (latent, estimate) for r, latent, estimate in ends}
