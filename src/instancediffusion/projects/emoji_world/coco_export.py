"""A world as a data set: pictures, a COCO instances file and a COCO captions file, for any program that reads COCO."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.geometry import rle_encode
from instancediffusion.runs import atomic_path, write_atomic
from instancediffusion.scene import CocoScene, coco_paths, write_coco
from instancediffusion.scene.english import part_word

from .samples import WorldInstance, WorldSample
from .world import World


def export_coco(
    world: World, folder: str | Path, count: int, *, first_seed: int = 0, kinds: Collection[str] = ("box", "mask")
) -> tuple[Path, Path]:
    """Write the samples of successive seeds as a data set, which `read_coco` reads back as what `to_scene` gives.

    A category is an object class; its id depends on the classes of the world alone. An annotation holds the amodal box
    and mask; under keys of ours, which other readers skip, its `caption`, `z_order`, `colour`, `facing`, the `visible`
    mask as a run-length code, and `parts`, name -> [x, y, width, height] in pixels. Images also hold the `seed` and the
    `background`. The JSON files are written last: where they are, everything is.

    Args:
        world: the samples are drawn from it.
        folder: gets `images/`, `instances.json` and `instances.captions.json`.
        count: number of pictures, at least 1.
        first_seed: seed of the first.
        kinds: the types of location that a scene read back states.

    Returns:
        The instances file and the captions file.

    Raises:
        SettingsError: no picture is asked for, or the folder holds a data set already.
    """
    paths = coco_paths(Path(folder) / "instances.json")
    if count < 1:
        raise SettingsError(f"count is {count}; ask for at least one picture")
    if paths[0].exists():
        raise SettingsError(f"{paths[0]} is there already; choose another folder, or move it away")
    scenes: list[CocoScene] = []
    truths: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    numbers = {name: number for number, name in enumerate(_names(world), 1)}
    for image_id in range(1, count + 1):
        sample = world.sample(first_seed + image_id - 1)
        file_name = f"images/{image_id:012d}.png"
        with atomic_path(Path(folder) / file_name) as temporary:
            Image.fromarray(sample.image).save(temporary, "PNG", compress_level=3)
        scenes.append(CocoScene(image_id, file_name, sample.to_scene(kinds)))
        images.append({"seed": sample.seed, "background": sample.background})
        truths += [{"category_id": numbers[item.name]} | _truth(item, sample) for item in sample.instances]
    instances, captions = write_coco(scenes)
    instances["categories"] = [{"id": number, "name": name} for name, number in numbers.items()]
    for written, more in ((instances["annotations"], truths), (instances["images"], images)):
        for entry, extra in zip(written, more, strict=True):
            entry |= extra
    for path, data in zip(paths, (instances, captions), strict=True):
        write_atomic(path, json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")
    return paths


def _names(world: World) -> list[str]:
    """Name every class, then, where parts are instances, every part of one."""
    parts = {f"{kind.name} {part_word(part)}" for kind in world.kinds for look in kind.drawings for part in look.parts}
    return [kind.name for kind in world.kinds] + (sorted(parts) if world.spec.part_share else [])


def _truth(item: WorldInstance, sample: WorldSample) -> dict[str, Any]:
    """Return the ground truth of an instance beyond its scene, as JSON data."""
    height, width = sample.image.shape[:2]
    parts = {
        name: [round(float(v), 2) for v in (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height)]
        for name, (x0, y0, x1, y1) in item.parts.items()
    }
    visible = {"size": [height, width], "counts": rle_encode(item.visible)}
    truth = {"z_order": item.z_order, "colour": item.colour, "facing": item.facing, "parts": parts, "visible": visible}
    return {key: value for key, value in truth.items() if value is not None and value != {}}
