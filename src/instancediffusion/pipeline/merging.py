"""The merge rules of the Multi-instance Sampler, by name; `register` adds another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from instancediffusion.choices import MERGE_RULES, StepRounding
from instancediffusion.conditioning import LocationTensors
from instancediffusion.pipeline.framing import BoxUnit
from instancediffusion.pipeline.layers import LatentCanvas, latent_locations, layered_merge
from instancediffusion.sampling import CropMerge, LastMerge, MeanMerge, Merge, Window, steps_in_fraction
from instancediffusion.scene import Instance, Scene
from instancediffusion.scene.ordering import back_to_front
from instancediffusion.settings import GenerationSettings


def steps_before_merge(settings: GenerationSettings, num_steps: int | None = None) -> int:
    """Number of steps with per-instance branches, of `num_steps` that are made (None = all of the settings)."""
    rounding: StepRounding = "published" if settings.mis_compat == "published" else "nearest"
    return steps_in_fraction(settings.mis_fraction, num_steps or settings.num_inference_steps, rounding)


def extent(instance: Instance) -> BoxUnit | None:
    """What an instance covers, as x0, y0, x1, y1 in fractions of the canvas.

    Its box; without one the bounding box of its mask or else of its scribble (which may have no area). A point alone
    says nothing of an extent: None.
    """
    return None if instance.kinds == ("point",) else instance.extent


@dataclass(frozen=True)
class MergeRule:
    """A way of joining the latents of single instances with that of the whole scene.

    Attributes:
        name: the value of `mis_merge`.
        merge: makes the `Merge` of a scene.
        located: whether `merge` reads `LatentCanvas.locations`.
        regional: until the merge, the whole scene's cross-attention reads the captions of instances where they are
            visible; see `adapter.regional`.
    """

    name: str
    merge: Callable[[Scene, LatentCanvas], Merge]
    located: bool = False
    regional: bool = False


def register(rule: MergeRule) -> MergeRule:
    """Add a merge rule of your own, or replace one: settings, commands and the studio then know its name."""
    MERGE_RULES[rule.name] = rule
    return rule


def merge_rule(
    scene: Scene,
    settings: GenerationSettings,
    latent_size: tuple[int, int],
    factor: int = 1,
    *,
    locate: Callable[[Scene, tuple[int, int]], LocationTensors] = latent_locations,
    ground: bool = False,
) -> Merge:
    """The merge of a scene.

    Args:
        scene: the scene.
        settings: `mis_merge` and `mis_compat` decide.
        latent_size: (height, width) in latent pixels.
        factor: of the UNet: the sides of its input are multiples of it.
        locate: gives, for rules that ask for it, the locations of the instances.
        ground: see `LatentCanvas`; then the rule is the layered one.
    """
    published = settings.mis_compat == "published"
    rule: MergeRule = MERGE_RULES["layered" if ground else settings.mis_merge]
    if published and settings.mis_fraction >= 1 and not ground and not rule.regional:
        return LastMerge(_numbers(scene))
    locations = locate(scene, latent_size) if rule.located else None
    return rule.merge(scene, LatentCanvas(latent_size, factor, published, locations, ground))


def _numbers(scene: Scene) -> tuple[int, ...]:
    return tuple(range(1, len(scene.instances) + 1))


def _mean(scene: Scene, _: LatentCanvas) -> Merge:
    return MeanMerge(_numbers(scene))


def _crop(scene: Scene, canvas: LatentCanvas) -> Merge:
    """An instance with nothing but a point is not pasted, and so has no branch of its own either: it has no extent.

    What is pasted later covers what is pasted earlier: first the instances without a stated order, then the stated
    ones from far to near; among equals the larger first, then the order of the scene.
    """
    placed = [(n, box) for n in _numbers(scene) if (box := extent(scene.instances[n - 1])) is not None]
    if canvas.published:
        return CropMerge(tuple((number, Window.published(box, canvas.size)) for number, box in placed))
    layers = [scene.instances[number - 1].z_order for number, _ in placed]
    order = back_to_front(layers, [(x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1) in placed])
    return CropMerge(tuple((placed[k][0], Window.from_box(placed[k][1], canvas.size)) for k in order))


def _no_branches(_: Scene, __: LatentCanvas) -> Merge:
    return MeanMerge(())


for _rule in (
    MergeRule("mean", _mean),
    MergeRule("crop", _crop),
    MergeRule("layered", layered_merge, located=True),
    MergeRule("regional", _no_branches, regional=True),
):
    register(_rule)
