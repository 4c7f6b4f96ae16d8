"""The work between checked requests and finished latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.denoiser import UNetDenoiser
from instancediffusion.pipeline.framing import WHOLE_CANVAS, BoxUnit
from instancediffusion.pipeline.layers import order_region
from instancediffusion.pipeline.merging import merge_rule, steps_before_merge
from instancediffusion.pipeline.requests import ImageRequest
from instancediffusion.pipeline.scene_bank import SceneBank, build_scene_bank
from instancediffusion.pipeline.settings import GenerationSettings
from instancediffusion.pipeline.text import encode_texts
from instancediffusion.pipeline.watch import Watch
from instancediffusion.sampling import (
    Merge,
    OrderGuidance,
    Scheduler,
    build_scheduler,
    count_rows,
    generators_for,
    grounding_schedule,
    sample,
    start_noise,
    steps_in_fraction,
)
from instancediffusion.scene import Scene


def negative_prompt_of(scene: Scene, settings: GenerationSettings) -> str:
    """The negative prompt of a scene: that of the run, else its own, else nothing."""
    return settings.negative_prompt if settings.negative_prompt is not None else scene.negative_prompt or ""


def scheduler_for(settings: GenerationSettings, model_scheduler: Scheduler) -> Scheduler:
    """The scheduler of a run.

    Raises:
        SettingsError: it has fewer steps than are asked for.
    """
    scheduler = build_scheduler(settings.scheduler, model_scheduler)
    most = scheduler.config.get("original_inference_steps") or scheduler.config.num_train_timesteps
    if settings.num_inference_steps > most:
        raise SettingsError(
            f"num_inference_steps: {settings.num_inference_steps} is more than the {most} steps of "
            f"{type(scheduler).__name__}; use {most} or fewer"
        )
    return scheduler


def check_noise(given: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise `SettingsError` unless there is one start noise of the right shape for each image."""
    if len(given) != len(shapes):
        raise SettingsError(f"latents: {len(given)} for {len(shapes)} images; give one for each image")
    for row, (value, shape) in enumerate(zip(given, shapes, strict=True)):
        if tuple(value.shape) != shape:
            raise SettingsError(f"latents[{row}]: its shape is {tuple(value.shape)}, this image needs {shape}")


@dataclass
class Run:
    """The images of one call on their way to latents; nothing of it outlives the call.

    Attributes:
        pipeline: gives the components and the device.
        scenes: the scenes of the call.
        requests: its images.
        settings: its settings.
        scheduler: a scheduler of the right kind, without history.
        latent_px: pixels in the side of one latent cell.
        given: start noise of each image in place of its seed's, or None.
        watch: progress and clocks.
    """

    pipeline: Any
    scenes: Sequence[Scene]
    requests: Sequence[ImageRequest]
    settings: GenerationSettings
    scheduler: Scheduler
    latent_px: int
    given: Sequence[Tensor] | None
    watch: Watch

    def latents(self) -> list[tuple[Tensor, Tensor]]:
        """Sample every image.

        Returns:
            For each, its latents and the model's estimate of the clean ones, (C, h, w) float32 on the CPU.
        """
        merge_after = steps_before_merge(self.settings)
        rules = [merge_rule(r.scene, self.settings, self._cells(r), self._factor) for r in self.requests]
        alone: list[dict[int, BoxUnit]] = [{} for _ in self.scenes]
        shares = [0.0 for _ in self.requests]
        for r in self.requests if merge_after else ():
            crops, cells = rules[r.index].crops, self._cells(r)
            frames = {i: crops[i].window.unit(cells) if i in crops else WHOLE_CANVAS for i in rules[r.index].instances}
            alone[r.scene_row] = frames
            shares[r.index] = sum(crops[i].share(cells) if i in crops else 1 for i in frames)
        regions = self._order_regions()
        ordered = {r.scene_row for r in self.requests if regions[r.index].any()}
        bank = self._bank(alone, sorted(ordered))
        total = count_rows(
            self.scheduler,
            self.settings.num_inference_steps,
            merge_after,
            shares,
            self.settings.guidance_scale,
            ordered=sum(bool(region.any()) for region in regions),
            order_steps=self._order_steps,
        )
        finished: dict[int, tuple[Tensor, Tensor]] = {}
        with self.watch.timed("sampling"), self.pipeline.progress_bar(total=total) as self.watch.bar:
            for size in dict.fromkeys(r.size for r in self.requests):
                group = [r for r in self.requests if r.size == size]
                finished |= self._sample(
                    group,
                    bank,
                    [rules[r.index] for r in group] if merge_after else [],
                    merge_after,
                    [regions[r.index] for r in group],
                )
        return [finished[r.index] for r in self.requests]

    def _cells(self, request: ImageRequest) -> tuple[int, int]:
        return request.size[0] // self.latent_px, request.size[1] // self.latent_px

    @property
    def _factor(self) -> int:
        return int(2 ** (len(self.pipeline.unet.config.block_out_channels) - 1))

    @property
    def _order_steps(self) -> int:
        settings = self.settings
        if settings.order_guidance_scale == 0:
            return 0
        return steps_in_fraction(settings.order_guidance_fraction, settings.num_inference_steps)

    def _order_regions(self) -> list[Tensor]:
        """Where order guidance acts on each image; nowhere if it is off."""
        sizes = [self._cells(r) for r in self.requests]
        if self._order_steps == 0:
            return [torch.zeros(size) for size in sizes]
        return [order_region(r.scene, size) for r, size in zip(self.requests, sizes, strict=True)]

    def _bank(self, alone: Sequence[dict[int, BoxUnit]], swapped: Sequence[int]) -> SceneBank:
        negatives = [negative_prompt_of(s, self.settings) for s in self.scenes]
        captions = [instance.caption for s in self.scenes for instance in s.instances]
        texts_shown = [*(s.prompt for s in self.scenes), *captions]
        with self.watch.timed("text"):
            texts = encode_texts(
                [*texts_shown, *negatives],
                self.pipeline.tokenizer,
                self.pipeline.text_encoder,
                self.pipeline._execution_device,
            )
        with self.watch.timed("grounding"):
            return build_scene_bank(
                self.scenes,
                negatives,
                alone,
                texts,
                self.pipeline.adapter,
                instance_mask=self.settings.instance_mask,
                max_rows=self.settings.max_batch_rows,
                swapped=swapped,
            )

    def _sample(
        self,
        group: Sequence[ImageRequest],
        bank: SceneBank,
        merges: Sequence[Merge],
        merge_after: int,
        regions: Sequence[Tensor],
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Sample images of one size together; returns latents and estimates by the index of the image."""
        pipeline, settings = self.pipeline, self.settings
        generators = generators_for([r.seed for r in group])
        # Drawn also where it is replaced, so that a scheduler's own noise does not depend on who gave the start.
        noise = start_noise(generators, (int(pipeline.unet.config.in_channels), *self._cells(group[0])))
        if self.given is not None:
            noise = torch.stack([self.given[r.index].detach().float().cpu() for r in group])
        contexts = bank.texts.contexts.to(pipeline.unet.dtype)
        result = sample(
            UNetDenoiser(pipeline.unet, contexts, bank.groundings, lambda b: bank.rows(group[b.image].scene_row, b)),
            self.scheduler,
            noise.to(pipeline._execution_device),
            grounding_scales=grounding_schedule(
                settings.num_inference_steps,
                settings.grounding_fraction,
                decay_fraction=settings.grounding_decay_fraction,
                rounding=settings.step_rounding,
            ),
            guidance_scale=settings.guidance_scale,
            merges=merges,
            merge_after=merge_after,
            order=OrderGuidance(settings.order_guidance_scale, self._order_steps, torch.stack(list(regions))),
            generators=generators,
            max_batch_rows=settings.max_batch_rows,
            observe=self.watch.step,
            should_stop=lambda: bool(pipeline.interrupt),
        )
        self.watch.end_group(result)
        ends = zip(group, result.latents.cpu(), result.estimate.cpu(), strict=True)
        return {r.index: (latent, estimate) for r, latent, estimate in ends}
