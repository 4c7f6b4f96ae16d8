"""Editing: what a change of a scene can touch of its picture is drawn anew, everything else stays as it is."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from instancediffusion.errors import InstanceDiffusionError, SceneError, SettingsError
from instancediffusion.pipeline.decoding import as_picture, to_images
from instancediffusion.pipeline.layered_output import instance_regions
from instancediffusion.pipeline.output import GenerationOutput
from instancediffusion.scene import Instance, Scene
from instancediffusion.scene.notes import notes_of, read_notes

_SHAPE_TOLERANCE = 0.03  # how far the shapes of canvas and picture may differ: sizes are rounded to what can be drawn


@dataclass(frozen=True)
class Source:
    """A picture to be edited, with what is known of how it was made.

    Attributes:
        image: RGB.
        scene: it was drawn from; None of a picture from elsewhere.
        seed: likewise.
        settings: likewise, as `GenerationSettings.to_dict` writes them.
    """

    image: Image.Image
    scene: Scene | None = None
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def read_source(picture: Any, index: int = 0) -> Source:
    """What is to be edited.

    Args:
        picture: a `GenerationOutput`, a PIL image, an array or tensor (as `output_type` `"np"` and `"pt"` give them),
            or the path or bytes of an image file. PNG files made here carry how they were made, and so do PIL images
            opened from them.
        index: which picture of an output.

    Raises:
        SettingsError: it is none of those, or has no such picture.
    """
    if isinstance(picture, GenerationOutput):
        if not 0 <= index < len(picture.seeds) or index in picture.failures:
            raise SettingsError(f"index: the output has no picture {index}; it has {len(picture.seeds)}")
        if picture.images is picture.latents:
            raise SettingsError('picture: the output holds latents; make it with another output_type, such as "pil"')
        image = to_images(as_picture(picture.images[index])[None])[0]
        return Source(image, picture.scenes[index], picture.seeds[index], picture.settings.to_dict())
    if isinstance(picture, str | os.PathLike):
        try:
            picture = Path(picture).read_bytes()
        except OSError as error:
            raise SettingsError(f"picture: {os.fspath(picture)} cannot be read ({error.strerror})") from error
    if isinstance(picture, bytes):
        return _read_file(picture)
    if isinstance(picture, Image.Image):
        return _with_notes(picture, notes_of(getattr(picture, "text", {})))
    try:
        return Source(to_images(as_picture(picture)[None])[0])
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        raise SettingsError(f"picture: {type(picture).__name__} is no picture that can be read") from error


def _read_file(data: bytes) -> Source:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            picture = image.copy()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise SettingsError(f"picture: it is no image file that can be read ({str(error)[:80]})") from error
    try:
        return _with_notes(picture, read_notes(io.BytesIO(data)))
    except InstanceDiffusionError:  # no PNG, or not one of ours
        return _with_notes(picture, {})


def _with_notes(image: Image.Image, notes: dict[str, Any]) -> Source:
    try:
        scene = Scene.from_dict(notes["scene"]) if "scene" in notes else None
    except SceneError:
        scene = None
    seed, settings = notes.get("seed"), notes.get("settings")
    return Source(
        image.convert("RGB"),
        scene,
        seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        dict(settings) if isinstance(settings, dict) else {},
    )


@dataclass(frozen=True)
class Change:
    """What is different between two scenes.

    Attributes:
        region: (H, W) bool: the pixels that the change can touch.
        before: instances (from 0) of the first scene that are not in the second: removed, moved or changed.
        after: instances of the second scene that are not in the first, or are to be drawn anew.
        restacked: pairs of instances of the second scene whose order to each other is another.
    """

    region: Tensor
    before: tuple[int, ...]
    after: tuple[int, ...]
    restacked: tuple[tuple[int, int], ...]


def find_change(
    before: Scene | None,
    after: Scene,
    size: tuple[int, int],
    *,
    redraw: Sequence[int] = (),
    margin: float = 0.0,
) -> Change:
    """Compare two scenes of one canvas.

    An instance is the same if its caption, locations, negative caption and reference are; numbers of `z_order` may
    differ as long as the order of any two is the same. The region of a change is: of an instance that was removed its
    old one, of one that was added its new one, of one that was moved or changed both; of two that were restacked
    their overlap. Whatever is hidden there by an instance given as a mask, which is the same in both scenes and stated
    to be nearer, is left out.

    Args:
        before: None if nothing is known of it: then nothing counts as the same.
        after: the other.
        size: (height, width) in pixels.
        redraw: instances of `after` that are to be drawn anew though they are the same.
        margin: by how much the regions of instances are widened on each side, in canvases.
    """
    old = before.instances if before is not None else ()
    pairs = _pairs(old, after.instances)
    gone = tuple(i for i in range(len(old)) if i not in {a for a, _ in pairs})
    kept = {b for _, b in pairs}
    new = tuple(i for i in range(len(after.instances)) if i not in kept or i in redraw)
    old_regions = instance_regions(before, size) if before is not None else torch.zeros(0, *size, dtype=torch.bool)
    new_regions = instance_regions(after, size)
    region = torch.zeros(size, dtype=torch.bool)
    same = [(a, b) for a, b in pairs if b not in redraw]

    def touched(pixels: Tensor, behind_old: Sequence[int], behind_new: Sequence[int]) -> Tensor:
        for a, b in same:
            if after.instances[b].mask is None:
                continue
            hides_old = all(_order(old[a], old[i]) == 1 for i in behind_old)
            if hides_old and all(_order(after.instances[b], after.instances[i]) == 1 for i in behind_new):
                pixels = pixels & ~new_regions[b]
        return pixels

    for i in gone:
        region |= touched(_widened(old_regions[i], margin), [i], [])
    for i in new:
        region |= touched(_widened(new_regions[i], margin), [], [i])
    restacked = []
    for k, (a, b) in enumerate(pairs):
        for c, d in pairs[k + 1 :]:
            if _order(old[a], old[c]) != _order(after.instances[b], after.instances[d]):
                restacked.append((b, d))
                region |= touched(new_regions[b] & new_regions[d], [a, c], [b, d])
    return Change(region, gone, new, tuple(restacked))


def _pairs(old: Sequence[Instance], new: Sequence[Instance]) -> list[tuple[int, int]]:
    """Instances that are the same, each with one at most; twins first with the twin of the same layer."""
    pairs: list[tuple[int, int]] = []
    for exact in (True, False):
        for b, instance in enumerate(new):
            if b in {j for _, j in pairs}:
                continue
            for a, other in enumerate(old):
                same_layer = other.z_order == instance.z_order or not exact
                if same_layer and a not in {i for i, _ in pairs} and _alike(other, instance):
                    pairs.append((a, b))
                    break
    return sorted(pairs)


def _alike(first: Instance, second: Instance) -> bool:
    """Whether all but the layer is the same; lengths go through pixels in files, and are rounded there."""
    for name in ("caption", "kinds", "mask", "negative", "reference"):
        if getattr(first, name) != getattr(second, name):
            return False
    ours, others = _lengths(first), _lengths(second)
    return len(ours) == len(others) and all(abs(a - b) < 1e-6 for a, b in zip(ours, others, strict=True))


def _lengths(instance: Instance) -> list[float]:
    values = list(instance.box.xyxy) if instance.box is not None else []
    values += [instance.point.x, instance.point.y] if instance.point is not None else []
    return values + ([v for pair in instance.scribble.points for v in pair] if instance.scribble is not None else [])


def _order(first: Instance, second: Instance) -> int:
    """1 if the first is stated to be nearer, -1 if farther, 0 if nothing is stated."""
    if first.z_order is None or second.z_order is None:
        return 0
    return (first.z_order > second.z_order) - (first.z_order < second.z_order)


def _widened(region: Tensor, margin: float) -> Tensor:
    steps = round(margin * max(region.shape))
    if steps == 0:
        return region
    grown = torch.nn.functional.max_pool2d(region.float()[None, None], 2 * steps + 1, 1, steps)
    return grown[0, 0] > 0


def check_shape(image: Image.Image, *scenes: Scene | None) -> None:
    """Raise `SettingsError` unless a picture has the shape of the scenes' canvases."""
    for scene in scenes:
        if scene is None:
            continue
        stretch = (image.width / image.height) / (scene.width / scene.height)
        if not 1 - _SHAPE_TOLERANCE <= stretch <= 1 + _SHAPE_TOLERANCE:
            raise SettingsError(
                f"scene: its canvas of {scene.width} x {scene.height} has another shape than the picture of "
                f"{image.width} x {image.height}; give it width={image.width}, height={image.height}"
            )


def why_nothing(before: Scene | None, after: Scene, redraw: Sequence[int]) -> str:
    """Why a change touches nothing, and what to do."""
    if before is not None and (before.prompt, before.negative_prompt) != (after.prompt, after.negative_prompt):
        return (
            "scene: only its prompt differs from the picture's, which says nothing of where; change instances, name "
            "those to draw anew (redraw=), or draw over all of the picture: pipe(scene, image=..., strength=...)"
        )
    if after.instances or redraw:
        return "scene: it is that of the picture; change an instance, or name those to draw anew (redraw=)"
    return "scene: it has no instances; add one where something is to change, or give pipe(scene, mask_image=...)"


def pasted(original: Image.Image, drawn: Image.Image, mask: Image.Image) -> Image.Image:
    """The original with what was drawn (of any size) where the mask is white; all else is the original's to the bit."""
    if drawn.size != original.size:
        drawn = drawn.resize(original.size, Image.Resampling.LANCZOS)
    result = original.copy()
    result.paste(drawn, (0, 0), mask)
    return result


def as_mask(region: Tensor) -> Image.Image:
    """A region (H, W) bool as a picture, white where it is."""
    return Image.fromarray((region.cpu().numpy() * 255).astype("uint8"))
