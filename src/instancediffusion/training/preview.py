"""Validation pictures during training: the same scenes and noise each time, sampled with a stock scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDIMScheduler
from PIL import Image, ImageDraw
from torch import Tensor

from instancediffusion.adapter import Grounding
from instancediffusion.adapter.backbones import backbone_of
from instancediffusion.conditioning import LocationTensors
from instancediffusion.data import SceneCache, collate
from instancediffusion.sampling import Branch, ClassifierFreeGuidance, Denoiser, sample
from instancediffusion.scene import Scene
from instancediffusion.training.config import DiffusionConfig
from instancediffusion.training.networks import Parts
from instancediffusion.training.task import Place

SCENES = 8
STEPS = 12
GUIDANCE = 2.0
SCORED_AT_ONCE = 8
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000000")


class Denoising(Protocol):
    """What is sampled from: networks in training, and how they are called. `DiffusionTask` is one."""

    @property
    def parts(self) -> Parts:
        """Text model, UNet, adapter, and the noise schedule."""
        ...

    @property
    def cache(self) -> SceneCache:
        """The scenes of the run."""
        ...

    @property
    def config(self) -> DiffusionConfig:
        """Its precision counts."""
        ...

    @property
    def where(self) -> Place:
        """The device."""
        ...

    def latents(self, rows: Sequence[int]) -> Tensor:
        """Latents of scenes, (B, C, h, w)."""
        ...

    def ground(self, locations: LocationTensors, captions: list[list[str]]) -> Grounding:
        """Grounding of a batch; captions of unused slots are ignored."""
        ...

    def predict(self, x: Tensor, t: Tensor, context: Tensor, grounding: Grounding) -> Tensor:
        """The network's prediction, of what the objective asks for, (B, C, h, w)."""
        ...


class Scorer(Protocol):
    """Validation callback: scores pictures of scenes of its own against what the scenes ask for.

    Training depends on no evaluator (judge); the command line hands one in.
    """

    scenes: Sequence[Scene]
    """What is sampled, the same each time; held out of training if the scores are to mean anything."""

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]]) -> Mapping[str, float]:
        """Score one picture (H, W, 3) for each scene, in their order."""
        ...


def write_preview(task: Denoising, path: Path) -> None:
    """Write a contact sheet: ground truth with boxes; pictures sampled from boxes and order; the same without boxes."""
    rows = task.cache.same_size(0, len(task.cache))[:SCENES].tolist()
    generator = torch.Generator().manual_seed(0)
    batch = collate(task.cache, rows, generator)
    given = batch.locations.drop("point", "scribble", "mask")
    noise = torch.randn((len(rows), *task.latents(rows[:1]).shape[1:]), generator=generator)
    made = draw(task, batch.prompts, batch.captions, given, noise)
    truth = np.stack([task.cache.image(row) for row in rows])
    boxed = [np.concatenate([_with_boxes(row[i], given, i) for i in range(len(rows))], axis=1) for row in (truth, made)]
    Image.fromarray(np.concatenate([*boxed, np.concatenate(list(made), axis=1)])).save(path)


def score(task: Denoising, scorer: Scorer) -> Mapping[str, float]:
    """Sample the scorer's scenes as the preview does, each from the same noise each time."""
    shape = task.latents([0]).shape[1:]
    images: list[npt.NDArray[np.uint8]] = []
    for first in range(0, len(scorer.scenes), SCORED_AT_ONCE):
        scenes = scorer.scenes[first : first + SCORED_AT_ONCE]
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(first + k)) for k in range(len(scenes))]
        captions = [[instance.caption for instance in scene.instances] for scene in scenes]
        given = task.parts.adapter.locations(scenes)
        images += list(draw(task, [scene.prompt for scene in scenes], captions, given, torch.stack(noise)))
    return scorer(images)


def draw(
    task: Denoising, prompts: list[str], captions: list[list[str]], given: LocationTensors, noise: Tensor
) -> npt.NDArray[np.uint8]:
    """Pictures (B, H, W, 3) uint8 of some scenes; see `sample_latents`."""
    with torch.no_grad(), task.where.autocast(task.config.optimiser.precision):
        latents = sample_latents(task, prompts, captions, given.to(task.where.device), noise.to(task.where.device))
        images = task.parts.latents.decode(latents.cpu()).float()
    made: npt.NDArray[np.uint8] = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return made


def sample_latents(
    task: Denoising, prompts: list[str], captions: list[list[str]], given: LocationTensors, noise: Tensor
) -> Tensor:
    """Latents (B, C, h, w) of some scenes after `STEPS` steps of DDIM with classifier-free guidance.

    The unconditional branch has neither prompt nor instances.
    """
    scheduler = DDIMScheduler.from_config(
        {**task.parts.objective.schedule, "timestep_spacing": "trailing"}, clip_sample=False, set_alpha_to_one=False
    )
    scheduler.set_timesteps(STEPS)
    network = _Network(task, prompts, captions, given, (noise.shape[-2], noise.shape[-1]))
    branches = [Branch(image) for image in range(len(prompts))]
    denoiser = ClassifierFreeGuidance(network, branches, GUIDANCE, max_rows=2 * len(prompts))
    return sample(denoiser, scheduler, noise)


@dataclass(frozen=True)
class _Network:
    """Networks in training, conditioned on some scenes: a `sampling.Network`."""

    task: Denoising
    prompts: list[str]
    captions: list[list[str]]
    given: LocationTensors
    size: tuple[int, int]  # (h, w) of the latents

    def bind(self, branches: Sequence[Branch]) -> Denoiser:
        """The denoiser of some batch elements; an unconditional one has no instance and an empty prompt."""
        task, nothing = self.task, LocationTensors.empty(1, self.given.slots).to(self.given.device)
        locations = [self.given.select([b.image]) if b.conditional else nothing for b in branches]
        grounding = task.ground(
            LocationTensors.cat(locations), [self.captions[b.image] if b.conditional else [] for b in branches]
        )
        grounding = grounding.on_maps(backbone_of(task.parts.unet).map_sizes(task.parts.unet, *self.size))
        context = task.parts.text.context([self.prompts[b.image] if b.conditional else "" for b in branches])
        return lambda x, t, step: task.predict(x, t, context, grounding)  # noqa: ARG005 - the same in all steps


def _with_boxes(image: np.ndarray, given: LocationTensors, row: int) -> np.ndarray:
    picture = Image.fromarray(image.copy())
    draw = ImageDraw.Draw(picture)
    for slot in range(given.slots):
        if given.present["box"][row, slot]:
            box = (given.boxes[row, slot] * torch.tensor([picture.width, picture.height] * 2)).tolist()
            draw.rectangle(box, outline=COLOURS[slot % len(COLOURS)])
    return np.asarray(picture)
