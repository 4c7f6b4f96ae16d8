"""A scene drawn as what it asks for: boxes, points, scribbles and masks, numbered, with their captions."""

from __future__ import annotations

import os
from collections.abc import Sequence

from PIL import Image

from instancediffusion.scene import Instance, Scene
from instancediffusion.scene.ordering import back_to_front

from .fonts import lettered_in
from .labels import LabelPlacer, Wish
from .legend import Legend
from .painter import Painter, PixelPainter, Rect, text_width
from .palette import CANVAS, PAPER, RULE, Colour, instance_colour, text_colour
from .svg import SvgPainter
from .wrap import one_line, shorten

_DEFAULT_SIDE = 768
_LABEL = 13.0
_MAX_CAPTIONS = 12  # with more instances the picture carries numbers only; the panel has every caption


def render_overlay(
    scene: Scene,
    size: tuple[int, int] | None = None,
    *,
    background: Image.Image | None = None,
    legend: bool = True,
    font: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Draw a scene.

    Args:
        scene: what to draw.
        size: (height, width) of the canvas on the picture, in pixels; None makes its longer side 768.
        background: a picture to draw on, such as one generated from the scene.
        legend: add a panel with the prompt and every instance, nearest first. It makes the result wider than `size`,
            and higher if it has to be.
        font: typeface (.ttf, .otf) of the lettering; None takes Pillow's own, and for letters it lacks, such as
            Chinese ones, a face of the system that has them.

    Raises:
        ValueError: the size or the typeface cannot be used.

    Returns:
        An RGB picture.
    """
    with lettered_in(font):
        canvas, panel, whole = _layout(scene, size, legend)
        painter = PixelPainter(whole)
        _draw(painter, scene, canvas, panel, background)
        return painter.finish()


def render_overlay_svg(
    scene: Scene,
    size: tuple[int, int] | None = None,
    *,
    background: Image.Image | None = None,
    legend: bool = True,
    font: str | os.PathLike[str] | None = None,
) -> str:
    """Draw a scene as SVG text; the arguments are those of `render_overlay`. Text is measured in the typeface only."""
    with lettered_in(font):
        canvas, panel, whole = _layout(scene, size, legend)
        painter = SvgPainter(whole)
        _draw(painter, scene, canvas, panel, background)
        return painter.finish()


def _layout(
    scene: Scene, size: tuple[int, int] | None, legend: bool
) -> tuple[tuple[int, int], Legend | None, tuple[int, int]]:
    """Return the canvas (height, width) on the picture, the panel, and the whole picture's (height, width)."""
    if size is None:
        scale = _DEFAULT_SIDE / max(scene.width, scene.height)
        size = (max(1, round(scene.height * scale)), max(1, round(scene.width * scale)))
    if min(size) < 1 or max(size) > 16384:
        raise ValueError(f"size is (height, width) in 1..16384 pixels, not {size}")
    if not legend:
        return size, None, size
    panel = Legend(scene, size[0])
    return size, panel, (round(panel.height), size[1] + round(panel.width))


def _draw(
    painter: Painter, scene: Scene, canvas: tuple[int, int], panel: Legend | None, background: Image.Image | None
) -> None:
    height, width = canvas
    area: Rect = (0.0, 0.0, float(width), float(height))
    painter.rectangle(area, fill=CANVAS)
    if background is not None:
        painter.picture(background, area)
    extents = [instance.extent for instance in scene.instances]
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in extents]
    for index in back_to_front([instance.z_order for instance in scene.instances], areas):
        _draw_instance(painter, scene.instances[index], instance_colour(index), scene, (width, height))
    painter.rectangle(area, stroke=RULE, width=1)
    _draw_labels(painter, scene, extents, (width, height))
    if panel is not None:
        panel.draw(painter, width, 0)


def _draw_instance(painter: Painter, instance: Instance, colour: Colour, scene: Scene, size: tuple[int, int]) -> None:
    for location in sorted(instance.stated((scene.height, scene.width)), key=lambda one: one.layer):
        location.draw(painter, colour, PAPER, size)


def _draw_labels(painter: Painter, scene: Scene, extents: Sequence[Rect], size: tuple[int, int]) -> None:
    width, height = size
    placer = LabelPlacer((0.0, 0.0, float(width), float(height)))
    wishes, texts = [], []
    for index, instance in enumerate(scene.instances):
        number, variants = str(index + 1), list[str]()
        if len(scene.instances) <= _MAX_CAPTIONS:
            caption = one_line(instance.caption[:400])
            variants = [f"{number}  {shorten(caption, limit * width, _LABEL)}" for limit in (0.45, 0.22)]
        texts.append([*dict.fromkeys(variants), number])
        x0, y0, x1, y1 = extents[index]
        margin = instance.stated((scene.height, scene.width))[0].margin_px
        area = (x0 * width - margin, y0 * height - margin, x1 * width + margin, y1 * height + margin)
        sizes = [(text_width(text, _LABEL) + 9, _LABEL + 5) for text in texts[-1]]
        wishes.append(Wish(sizes, area, _anchor(instance, extents[index], size)))
    # Small objects have few positions to choose from, so they choose first.
    order = sorted(range(len(wishes)), key=lambda i: (wishes[i].area[2] - wishes[i].area[0]) * _height(wishes[i].area))
    placed = {index: placer.place(wishes[index]) for index in order}
    for index, placement in placed.items():
        if placement.apart:
            x0, y0, x1, y1 = placement.rect
            ends = [((x0 + x1) / 2, (y0 + y1) / 2), wishes[index].anchor]
            painter.line(ends, stroke=instance_colour(index), width=1)
    for index, placement in placed.items():
        colour, (x0, y0, _, _) = instance_colour(index), placement.rect
        painter.rectangle(placement.rect, fill=colour, radius=4)
        text = texts[index][placement.variant]
        painter.text((x0 + 4.5, y0 + 1.5), text, size=_LABEL, fill=text_colour(colour))


def _anchor(instance: Instance, extent: Rect, size: tuple[int, int]) -> tuple[float, float]:
    """Return a point of the instance in pixels, for a label that stands away from it."""
    if instance.point is not None:
        x, y = instance.point.x, instance.point.y
    elif instance.scribble is not None and instance.box is None:
        x, y = instance.scribble.points[len(instance.scribble.points) // 2]
    else:
        x, y = (extent[0] + extent[2]) / 2, (extent[1] + extent[3]) / 2
    return (x * size[0], y * size[1])


def _height(area: Rect) -> float:
    return area[3] - area[1]
