"""The pictures a call asks for: scene, prompts, seed and size of each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instancediffusion.errors import SettingsError
from instancediffusion.scene import Instance, Scene

NO_PROMPT = "(no prompt)"
"""What stands in a scene as its prompt where the call gave none in words."""

_WHAT = "scene: give a Scene or a list of at least one (load_scene reads a file), or a prompt and instances"

MAX_SEED = 2**64 - 1
"""The largest seed; torch takes all of 64 bits."""


@dataclass(frozen=True)
class ImageRequest:
    """One picture to make.

    Attributes:
        index: its index in the output.
        scene: the scene.
        scene_row: the scene's index among those of the call.
        seed: of its generator.
        size: (height, width) in pixels.
        negative_prompt: what it is not to show.
        generator: draws its noise in place of one that is seeded with `seed`; several images may share one.
    """

    index: int
    scene: Scene
    scene_row: int
    seed: int
    size: tuple[int, int]
    negative_prompt: str = ""
    generator: torch.Generator | None = None


def asked_scenes(
    scene: Any,
    prompt: Any,
    instances: Any,
    prompt_embeds: Tensor | None,
    canvas_px: Callable[[], tuple[int, int]],
) -> list[Scene]:
    """The scenes that a call describes.

    Args:
        scene: a scene, or several; a text, or several, counts as `prompt`.
        prompt: a prompt, or several, in place of a scene.
        instances: the instances of the prompt; with several prompts, those of each, or of all.
        prompt_embeds: (B, L, D) prompts that are encoded already; they may also go with scenes.
        canvas_px: (height, width) of the canvas of a prompt.

    Raises:
        SettingsError: nothing is described, or something twice.
        SceneError: an instance does not fit.
    """
    if isinstance(scene, str) or (_is_list(scene) and scene and all(isinstance(text, str) for text in scene)):
        if prompt is not None:
            raise SettingsError("prompt: it is given twice; leave one out")
        scene, prompt = None, scene
    if scene is not None:
        if prompt is not None or instances is not None:
            named = "prompt" if prompt is not None else "instances"
            raise SettingsError(f"{named}: a scene is given, too, and it has its own; leave one of them out")
        scenes = [scene] if isinstance(scene, Scene) else list(scene) if _is_list(scene) else []
        if not scenes or not all(isinstance(one, Scene) for one in scenes):
            raise SettingsError(_WHAT)
        return scenes
    if prompt is not None and prompt_embeds is not None:
        raise SettingsError("prompt_embeds: a prompt is given, too; leave one of them out")
    if prompt is None and prompt_embeds is None:
        raise SettingsError(_WHAT)
    prompts = _prompts(prompt, prompt_embeds)
    given = _instances(instances, len(prompts))
    return [_scene(text, own, canvas_px) for text, own in zip(prompts, given, strict=True)]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _prompts(prompt: Any, prompt_embeds: Tensor | None) -> list[str]:
    if prompt_embeds is not None:
        return [NO_PROMPT] * len(prompt_embeds)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt) if _is_list(prompt) else []
    if not prompts or not all(isinstance(text, str) for text in prompts):
        raise SettingsError(f"prompt: {prompt!r} is not a text or a list of at least one")
    return prompts


def _instances(instances: Any, count: int) -> list[tuple[Instance, ...]]:
    given: list[Any] = [] if instances is None else list(instances) if _is_list(instances) else [None]
    if all(isinstance(one, Instance) for one in given):
        return [tuple(given)] * count
    if not all(_is_list(one) and all(isinstance(i, Instance) for i in one) for one in given):
        raise SettingsError("instances: give a list of Instance, or such a list for each prompt")
    if len(given) != count:
        raise SettingsError(f"instances: {len(given)} lists for {count} prompts; give one for each")
    return [tuple(one) for one in given]


def _scene(prompt: str, instances: tuple[Instance, ...], canvas_px: Callable[[], tuple[int, int]]) -> Scene:
    sizes = [instance.mask.size for instance in instances if instance.mask is not None]
    height, width = sizes[0] if sizes else canvas_px()
    return Scene(prompt if prompt.strip() else NO_PROMPT, instances, max(width, 16), max(height, 16))


def image_requests(
    scenes: Sequence[Scene],
    seeds: Sequence[int],
    size_of: Callable[[Scene], tuple[int, int]],
    *,
    negative_prompt: str | Sequence[str] | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> list[ImageRequest]:
    """Every scene with every seed, scene by scene.

    Args:
        scenes: at least one.
        seeds: of the images of each scene; with `generator`, only their number counts.
        size_of: (height, width) in pixels of a scene's pictures.
        negative_prompt: one for all, for each scene, or for each image; None takes each scene's own.
        generator: one for all images, which draw from it in turn, or one for each.

    Raises:
        SettingsError: `negative_prompt` or `generator` are of another type or number.
    """
    pairs = [(row, scene, seed) for row, scene in enumerate(scenes) for seed in seeds]
    negatives = _negatives(negative_prompt, [(row, scene) for row, scene, _ in pairs], len(scenes))
    generators = _generators(generator, len(pairs))
    requests = []
    for k, (row, scene, seed) in enumerate(pairs):
        own = generators[k]
        stated = seed if own is None else (own.initial_seed() + (0 if _is_list(generator) else k)) % (MAX_SEED + 1)
        requests.append(ImageRequest(k, scene, row, stated, size_of(scene), negatives[k], own))
    return requests


def _negatives(given: str | Sequence[str] | None, images: Sequence[tuple[int, Scene]], scenes: int) -> list[str]:
    if given is None:
        return [scene.negative_prompt or "" for _, scene in images]
    if isinstance(given, str):
        return [given] * len(images)
    if not _is_list(given) or not all(isinstance(text, str) for text in given):
        raise SettingsError(f"negative_prompt: {given!r} is not a text or a list of texts; a Scene may hold its own")
    if len(given) == len(images):
        return list(given)
    if len(given) == scenes:
        return [given[row] for row, _ in images]
    raise SettingsError(
        f"negative_prompt: {len(given)} for {scenes} scenes and {len(images)} images; give one for each"
    )


def _generators(
    given: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> list[torch.Generator] | list[None]:
    if given is None:
        return [None] * count
    generators: list[Any] = list(given) if isinstance(given, Sequence) else [given] * count
    if not all(isinstance(one, torch.Generator) for one in generators):
        raise SettingsError("generator: give a torch.Generator, or one for each image")
    if len(generators) != count:
        raise SettingsError(f"generator: {len(generators)} for {count} images; give one for each, or one for all")
    return generators


def resolve_seeds(
    seed: int | Sequence[int] | None, images_per_scene: int | None, name: str = "num_images_per_scene"
) -> list[int]:
    """The seeds that every scene is drawn with.

    Args:
        seed: a number (further images of a scene count up from it), or one for each image of a scene. None draws
            one below 2**32.
        images_per_scene: images of each scene; None means as many as there are seeds, or one.
        name: what the caller calls `images_per_scene`.

    Raises:
        SettingsError: a seed is no whole number of 0..2**64 - 1, or the two disagree.
    """
    count = 1 if images_per_scene is None else images_per_scene
    if not _is_integer(count) or count < 1:
        raise SettingsError(f"{name}: {images_per_scene!r} is not a whole number of 1 or more")
    first: Any = secrets.randbelow(2**32) if seed is None else seed
    if isinstance(first, Sequence) and not isinstance(first, str):
        seeds = list(first)
        if not seeds or (images_per_scene is not None and len(seeds) != images_per_scene):
            raise SettingsError(f"seed: {len(seeds)} seeds are given; give one for each image of a scene, or a number")
    else:
        seeds = [first + k for k in range(count)] if _is_integer(first) else [first]
    for value in seeds:
        if not _is_integer(value) or not 0 <= value <= MAX_SEED:
            raise SettingsError(f"seed: {value!r} is not a whole number from 0 to 2**64 - 1")
    return seeds


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
