"""Validation pictures during training: the same scenes and noise each time, sampled with a stock scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDIMScheduler
from PIL import Image, ImageDraw
from torch import Tensor

from instancediffusion.adapter.backbones import backbone_of
from instancediffusion.conditioning import LocationTensors
from instancediffusion.data import SceneCache, collate
from instancediffusion.sampling import Branch, ClassifierFreeGuidance, Denoiser, sample
from instancediffusion.scene import Scene
from instancediffusion.training.config import DiffusionConfig, DistillationConfig
from instancediffusion.training.networks import Parts
from instancediffusion.training.task import Place

SCENES = 8
STEPS = 12
GUIDANCE = 2.0
SCORED_AT_ONCE = 8
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000000")


class Denoising(Protocol):
    """What is sampled from: networks in training, and their scenes. `DiffusionTask` is one."""

    @property
    def parts(self) -> Parts:
        """Text model, UNet, adapter, and the noise schedule."""
        ...

    @property
    def cache(self) -> SceneCache:
        """The scenes of the run."""
        ...

    @property
    def config(self) -> DiffusionConfig | DistillationConfig:
        """Its precision counts."""
        ...

    @property
    def where(self) -> Place:
        """The device."""
        ...

    def latents(self, rows: Sequence[int]) -> Tensor:
        """Latents of scenes, (B, C, h, w)."""
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


def write_preview(task: Denoising, path: Path, sampling: Sampling | None = None) -> None:
    """Write a contact sheet: ground truth with boxes; pictures sampled from boxes and order; the same without boxes."""
    rows = task.cache.same_size(0, len(task.cache))[:SCENES].tolist()
    generator = torch.Generator().manual_seed(0)
    batch = collate(task.cache, rows, generator)
    given = batch.locations.drop("point", "scribble", "mask")
    noise = torch.randn((len(rows), *task.latents(rows[:1]).shape[1:]), generator=generator)
    made = draw(task, batch.prompts, batch.captions, given, noise, sampling)
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
    task: Denoising,
    prompts: list[str],
    captions: list[list[str]],
    given: LocationTensors,
    noise: Tensor,
    sampling: Sampling | None = None,
) -> npt.NDArray[np.uint8]:
    """Pictures (B, H, W, 3) uint8 of some scenes, sampled by `sample_latents` if nothing else is said."""
    device = task.where.device
    with torch.no_grad(), task.where.autocast(task.config.optimiser.precision):
        network = SceneNetwork(task.parts, prompts, captions, given.to(device), (noise.shape[-2], noise.shape[-1]))
        latents = (sampling or sample_latents)(network, noise.to(device))
        images = task.parts.latents.decode(latents.cpu()).float()
    made: npt.NDArray[np.uint8] = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return made


def sample_latents(network: SceneNetwork, noise: Tensor) -> Tensor:
    """Latents (B, C, h, w) of some scenes after `STEPS` steps of DDIM with classifier-free guidance.

    The unconditional branch has neither prompt nor instances.
    """
    scheduler = DDIMScheduler.from_config(
        {**network.source.objective.schedule, "timestep_spacing": "trailing"}, clip_sample=False, set_alpha_to_one=False
    )
    scheduler.set_timesteps(STEPS)
    branches = [Branch(image) for image in range(len(noise))]
    return sample(ClassifierFreeGuidance(network, branches, GUIDANCE, max_rows=2 * len(noise)), scheduler, noise)


@dataclass(frozen=True)
class SceneNetwork:
    """Networks in training, conditioned on some scenes: a `sampling.Network`.

    Attributes:
        source: the networks.
        prompts: B texts.
        captions: for each scene, a caption for each of its instances.
        given: the locations of B scenes, on the device of the networks.
        size: (h, w) of the latents.
    """

    source: Parts
    prompts: list[str]
    captions: list[list[str]]
    given: LocationTensors
    size: tuple[int, int]

    def bind(self, branches: Sequence[Branch]) -> Denoiser:
        """The denoiser of some batch elements; an unconditional one has no instance and an empty prompt."""
        source, nothing = self.source, LocationTensors.empty(1, self.given.slots).to(self.given.device)
        locations = [self.given.select([b.image]) if b.conditional else nothing for b in branches]
        grounding = source.ground(
            LocationTensors.cat(locations), [self.captions[b.image] if b.conditional else [] for b in branches]
        )
        grounding = grounding.on_maps(backbone_of(source.unet).map_sizes(source.unet, *self.size))
        context = source.text.context([self.prompts[b.image] if b.conditional else "" for b in branches])
        return lambda x, t, step: source.predict(x, t, context, grounding)  # noqa: ARG005 - the same in all steps


Sampling = Callable[[SceneNetwork, Tensor], Tensor]
"""From a network with the conditioning of B scenes, and noise (B, C, h, w), to latents."""


def _with_boxes(image: np.ndarray, given: LocationTensors, row: int) -> np.ndarray:
    picture = Image.fromarray(image.copy())
    draw = ImageDraw.Draw(picture)
    for slot in range(given.slots):
        if given.present["box"][row, slot]:
            box = (given.boxes[row, slot] * torch.tensor([picture.width, picture.height] * 2)).tolist()
            draw.rectangle(box, outline=COLOURS[slot % len(COLOURS)])
    return np.asarray(picture)
