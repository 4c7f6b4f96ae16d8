"""How scenes and pictures show themselves in notebooks."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from instancediffusion.scene import Scene

from .overlay import render_overlay, render_overlay_svg
from .sheet import contact_sheet

_SIDE = 384


def scene_png(scene: Scene) -> bytes:
    """The overlay of a scene as PNG."""
    return _png(render_overlay(scene, _shape(scene)))


def scene_html(scene: Scene) -> str:
    """The overlay of a scene as SVG inside HTML, with the prompt for those who cannot see it."""
    label = html.escape(scene.prompt, quote=True)
    return f'<div role="img" aria-label="{label}">{render_overlay_svg(scene, _shape(scene))}</div>'


def images_png(images: Sequence[Image.Image], labels: Sequence[str]) -> bytes | None:
    """Pictures on one contact sheet as PNG, a single one as it is; None if there is none."""
    if not images:
        return None
    return _png(images[0] if len(images) == 1 else contact_sheet(images, min(len(images), 4), labels))


def images_html(images: Sequence[Image.Image], scenes: Sequence[Scene], labels: Sequence[str]) -> str:
    """Pictures side by side, each with its label below and the captions of its instances as a tooltip."""
    figures = []
    for image, scene, label in zip(images, scenes, labels, strict=True):
        captions = html.escape(", ".join(instance.caption for instance in scene.instances), quote=True)
        source = base64.b64encode(_png(image)).decode()
        figures.append(
            f'<figure style="display:inline-block;margin:4px;vertical-align:top;max-width:{max(image.width, 128)}px">'
            f'<img src="data:image/png;base64,{source}" alt="{html.escape(scene.prompt, quote=True)}" '
            f'title="{captions}" width="{image.width}" height="{image.height}"/>'
            f"<figcaption>{html.escape(label)}</figcaption></figure>"
        )
    return f"<div>{''.join(figures)}</div>"


def _shape(scene: Scene) -> tuple[int, int]:
    scale = _SIDE / max(scene.width, scene.height)
    return max(1, round(scene.height * scale)), max(1, round(scene.width * scale))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
