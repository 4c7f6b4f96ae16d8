"""A picture decomposed into layers, and their files: a folder of PNGs, and OpenRaster (Krita, GIMP)."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from instancediffusion.conditioning import locations_from_scenes
from instancediffusion.conditioning.visibility import memberships
from instancediffusion.pipeline.decoding import to_images
from instancediffusion.scene import Scene
from instancediffusion.scene.ordering import back_to_front

BACKGROUND = "background"
_THUMBNAIL_PX = 256


@dataclass(frozen=True)
class Layer:
    """One layer of a picture.

    Attributes:
        caption: of the instance; `"background"` of the last layer, which has none.
        instance: from 0; None for the background.
        image: RGBA, of the size of the picture. Where the instance is visible the colours are the picture's own;
            where others hide it they are those it was drawn with on a layer of its own. The alpha is 255 in the
            instance's region and 0 outside: its mask; else its box; else the half-value disc round its stroke or point.
            It is *not* a matte of the drawn object: in a box, what lies round the object belongs to the layer, too.
    """

    caption: str
    instance: int | None
    image: Image.Image


def take_apart(scene: Scene, picture: Tensor, drawn: Mapping[int, Tensor]) -> tuple[Layer, ...]:
    """Cut a picture into layers, which laid over each other give the picture again.

    Args:
        scene: of the picture.
        picture: (3, H, W), -1 to 1.
        drawn: pictures of the layers, by instance from 1; 0 = without any instance.

    Returns:
        From back to front: the background, then the instances: those without a stated order first, then by
        `z_order`; among equals the larger first.
    """
    size = (picture.shape[-2], picture.shape[-1])
    whole = torch.ones(size, dtype=torch.bool)
    regions = instance_regions(scene, size)
    order = back_to_front([instance.z_order for instance in scene.instances], regions.flatten(1).sum(1).tolist())
    layers: list[Layer] = []
    covered = ~whole
    for index in reversed(order):
        own = drawn.get(index + 1, picture)
        layers.append(_layer(scene.instances[index].caption, index, picture, own, regions[index], covered))
        covered = covered | regions[index]
    layers.append(_layer(BACKGROUND, None, picture, drawn.get(0, picture), whole, covered))
    return tuple(reversed(layers))


def instance_regions(scene: Scene, size: tuple[int, int]) -> Tensor:
    """(N, H, W) bool: the region of each instance, hidden or not, in pixels; see `Layer` for what it is."""
    if not scene.instances:
        return torch.zeros(0, *size, dtype=torch.bool)
    locations = locations_from_scenes([scene], segmentation_size=max(size), segmentation_channels=0)
    regions = memberships(locations, size)[0] >= 0.5
    for row, instance in enumerate(scene.instances):
        if instance.mask is not None:
            mask = torch.from_numpy(instance.mask.array.copy()).float()[None, None]
            regions[row] = functional.interpolate(mask, size=size, mode="nearest-exact")[0, 0] > 0
    return regions


def _layer(caption: str, index: int | None, picture: Tensor, drawn: Tensor, region: Tensor, covered: Tensor) -> Layer:
    colours = to_images(torch.where(covered, drawn, picture)[None])[0]
    colours.putalpha(Image.fromarray((region.numpy() * 255).astype("uint8")))
    return Layer(caption, index, colours)


def composite(layers: Sequence[Layer]) -> Image.Image:
    """Lay layers over each other; RGB."""
    joined = Image.new("RGBA", layers[0].image.size)
    for layer in layers:
        joined = Image.alpha_composite(joined, layer.image)
    return joined.convert("RGB")


def layer_files(layers: Sequence[Layer]) -> dict[str, bytes]:
    """PNG files from back to front, and `composite.png`, by name."""
    files = {f"{number:02}_{_word(layer.caption)}.png": _png(layer.image) for number, layer in enumerate(layers)}
    return {**files, "composite.png": _png(composite(layers))}


def openraster(layers: Sequence[Layer]) -> bytes:
    """An OpenRaster file (version 0.0.6 of the specification): the layers, the joined picture and a thumbnail."""
    joined = composite(layers)
    width, height = joined.size
    image = ElementTree.Element("image", version="0.0.6", w=str(width), h=str(height))
    stack = ElementTree.SubElement(image, "stack")
    parts: dict[str, bytes] = {}
    for number, layer in reversed(list(enumerate(layers))):  # the first in the stack is the uppermost
        source = f"data/layer{number:03}.png"
        name = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", " ", layer.caption)
        shown = {"name": name, "src": source, "x": "0", "y": "0", "opacity": "1.0", "visibility": "visible"}
        ElementTree.SubElement(stack, "layer", {**shown, "composite-op": "svg:src-over"})
        parts[source] = _png(layer.image)
    small = joined.copy()
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # Programs recognise the file by this entry, which comes first and is not packed.
        _add(archive, "mimetype", b"image/openraster", zipfile.ZIP_STORED)
        _add(archive, "stack.xml", ElementTree.tostring(image, encoding="utf-8", xml_declaration=True))
        for source, data in sorted(parts.items()):
            _add(archive, source, data, zipfile.ZIP_STORED)
        _add(archive, "mergedimage.png", _png(joined), zipfile.ZIP_STORED)
        _add(archive, "Thumbnails/thumbnail.png", _png(small), zipfile.ZIP_STORED)
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes, packing: int = zipfile.ZIP_DEFLATED) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # the same layers give the same file
    entry.compress_type = packing
    archive.writestr(entry, data)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _word(caption: str) -> str:
    words = "_".join(re.findall(r"\w+", caption.lower()))
    while len(words.encode()) > 60:
        words = words.rpartition("_")[0] or words[:-1]
    return words or "instance"
