"""The merge rules of the Multi-instance Sampler, by name; `register` adds another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from instancediffusion.choices import MERGE_RULES, StepRounding
from instancediffusion.pipeline.framing import BoxUnit
from instancediffusion.pipeline.layers import layered_merge
from instancediffusion.sampling import CropMerge, LastMerge, MeanMerge, Merge, Window, steps_in_fraction
from instancediffusion.scene import Instance, Scene
from instancediffusion.settings import GenerationSettings


def steps_before_merge(settings: GenerationSettings, num_steps: int | None = None) -> int:
    """Number of steps in which instances run alone, of `num_steps` that are made (None = all of the settings)."""
    rounding: StepRounding = "published" if settings.mis_compat == "published" else "nearest"
    return steps_in_fraction(settings.mis_fraction, num_steps or settings.num_inference_steps, rounding)


def extent(instance: Instance) -> BoxUnit | None:
    """What an instance covers, as x0, y0, x1, y1 in fractions of the canvas.

    Its box; without one the bounding box of its mask or else of its scribble (which may have no area). A point alone
    says nothing of an extent: None.
    """
    return None if instance.kinds == ("point",) else instance.extent


@dataclass(frozen=True)
class LatentCanvas:
    """What a merge rule is made for, beside a scene.

    Attributes:
        size: (height, width) of the latent in latent pixels.
        factor: of the UNet: the sides of its input are multiples of it.
        published: whether the details of the published code are asked for (`mis_compat`).
    """

    size: tuple[int, int]
    factor: int = 1
    published: bool = False


@dataclass(frozen=True)
class MergeRule:
    """A way of joining the latents of single instances with that of the whole scene.

    Attributes:
        name: the value of `mis_merge`.
        merge: makes the `Merge` of a scene.
    """

    name: str
    merge: Callable[[Scene, LatentCanvas], Merge]


def register(rule: MergeRule) -> MergeRule:
    """Add a merge rule of your own, or replace one: settings, commands and the studio then know its name."""
    MERGE_RULES[rule.name] = rule
    return rule


def merge_rule(scene: Scene, settings: GenerationSettings, latent_size: tuple[int, int], factor: int = 1) -> Merge:
    """The merge of a scene.

    Args:
        scene: the scene.
        settings: `mis_merge` and `mis_compat` decide.
        latent_size: (height, width) in latent pixels.
        factor: of the UNet: the sides of its input are multiples of it.
    """
    published = settings.mis_compat == "published"
    if published and settings.mis_fraction >= 1:
        return LastMerge(_numbers(scene))
    rule: MergeRule = MERGE_RULES[settings.mis_merge]
    return rule.merge(scene, LatentCanvas(latent_size, factor, published))


def _numbers(scene: Scene) -> tuple[int, ...]:
    return tuple(range(1, len(scene.instances) + 1))


def _mean(scene: Scene, _: LatentCanvas) -> Merge:
    return MeanMerge(_numbers(scene))


def _layered(scene: Scene, canvas: LatentCanvas) -> Merge:
    return layered_merge(scene, canvas.size, canvas.factor)


def _crop(scene: Scene, canvas: LatentCanvas) -> Merge:
    """An instance with nothing but a point is not pasted, and so is not run alone either: it has no extent.

    What is pasted later covers what is pasted earlier: first the instances without a stated order, then the stated
    ones from far to near; among equals the larger first, then the order of the scene.
    """
    extents = [(number, extent(scene.instances[number - 1])) for number in _numbers(scene)]
    placed = [(number, box) for number, box in extents if box is not None]
    if canvas.published:
        return CropMerge(tuple((number, Window.published(box, canvas.size)) for number, box in placed))
    placed.sort(key=lambda item: _paste_key(scene.instances[item[0] - 1], item[1]))
    return CropMerge(tuple((number, Window.from_box(box, canvas.size)) for number, box in placed))


def _paste_key(instance: Instance, box: BoxUnit) -> tuple[bool, int, float]:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return (instance.z_order is not None, instance.z_order or 0, -area)


for _rule in (MergeRule("mean", _mean), MergeRule("crop", _crop), MergeRule("layered", _layered)):
    register(_rule)
