"""From a scene and the settings to a merge rule of the Multi-instance Sampler."""

from __future__ import annotations

from instancediffusion.geometry import mask_box, points_box
from instancediffusion.pipeline.layers import layered_merge
from instancediffusion.pipeline.settings import GenerationSettings
from instancediffusion.sampling import CropMerge, LastMerge, MeanMerge, Merge, StepRounding, Window, steps_in_fraction
from instancediffusion.scene import Instance, Scene

BoxUnit = tuple[float, float, float, float]


def steps_before_merge(settings: GenerationSettings, num_steps: int | None = None) -> int:
    """Number of steps in which instances run alone, of `num_steps` that are made (None = all of the settings)."""
    rounding: StepRounding = "published" if settings.mis_compat == "published" else "nearest"
    return steps_in_fraction(settings.mis_fraction, num_steps or settings.num_inference_steps, rounding)


def extent(instance: Instance) -> BoxUnit | None:
    """What an instance covers, as x0, y0, x1, y1 in fractions of the canvas.

    Its box; without one the bounding box of its mask or else of its scribble (which may have no area). A point alone
    says nothing of an extent: None.
    """
    if instance.box is not None:
        return instance.box.xyxy
    if instance.mask is not None:
        return mask_box(instance.mask.array)
    if instance.scribble is not None:
        return points_box(instance.scribble.points)
    return None


def merge_rule(scene: Scene, settings: GenerationSettings, latent_size: tuple[int, int], factor: int = 1) -> Merge:
    """The merge rule of a scene.

    Under `"crop"` an instance with nothing but a point is not pasted, and so is not run alone either: it has no
    extent. What is pasted later covers what is pasted earlier: first the instances without a stated order, then the
    stated ones from far to near; among equals the larger first, then the order of the scene.

    Args:
        scene: the scene.
        settings: `mis_merge` and `mis_compat` decide.
        latent_size: (height, width) in cells.
        factor: of the UNet, for `"layered"`: the sides of its input are multiples of it.
    """
    everyone = tuple(range(1, len(scene.instances) + 1))
    published = settings.mis_compat == "published"
    if published and settings.mis_fraction >= 1:
        return LastMerge(everyone)
    if settings.mis_merge == "mean":
        return MeanMerge(everyone)
    if settings.mis_merge == "layered":
        return layered_merge(scene, latent_size, factor)
    extents = [(number, extent(scene.instances[number - 1])) for number in everyone]
    placed = [(number, box) for number, box in extents if box is not None]
    if published:
        return CropMerge(tuple((number, Window.published(box, latent_size)) for number, box in placed))
    placed.sort(key=lambda item: _paste_key(scene.instances[item[0] - 1], item[1]))
    return CropMerge(tuple((number, Window.from_box(box, latent_size)) for number, box in placed))


def _paste_key(instance: Instance, box: BoxUnit) -> tuple[bool, int, float]:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return (instance.z_order is not None, instance.z_order or 0, -area)
