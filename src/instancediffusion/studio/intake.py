"""Files that are dropped or pasted: scenes, pictures that carry their scene, masks, pictures for reference."""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
from collections.abc import Collection
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from instancediffusion.errors import InstanceDiffusionError, SceneError
from instancediffusion.scene import Mask, scene_text
from instancediffusion.scene.notes import read_notes
from instancediffusion.studio.bounds import Limits, RefusedError
from instancediffusion.studio.scene_checks import Checked, check
from instancediffusion.studio.store import exact_seed

_PNG, _JPEG, _WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"


def decoded(data: object, limits: Limits) -> bytes:
    """The bytes of a file in base64, as a request carries it.

    Raises:
        RefusedError: it is no base64, empty, or larger than the studio reads.
    """
    if not isinstance(data, str):
        raise RefusedError("file: write its bytes in base64")
    if len(data) > limits.upload_bytes * 4 // 3 + 8:
        raise RefusedError(f"file: it is larger than {limits.upload_bytes >> 20} MB")
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError("file: it is not in base64") from None
    if not content:
        raise RefusedError("file: it is empty")
    return content


def read_file(
    content: bytes, canvas: tuple[int, int], limits: Limits, vocabulary: Collection[str] = ()
) -> dict[str, Any]:
    """Find out what a file is and read it.

    Args:
        content: the file.
        canvas: (height, width) in pixels of the scene it is dropped on; a mask has this size.
        limits: bounds.
        vocabulary: the words the model knows.

    Returns:
        `kind` says what it is: `"scene"` (with `scene`, `problems`, `format`; a picture's own scene comes with `seed`
        and `settings`, too), `"mask"` (with `mask`), or `"reference"`, any other picture (with `reason`, which says
        why it is no mask).

    Raises:
        RefusedError: it is neither a scene nor a picture, or damaged, or too large to be unpacked.
        SceneError: it is a scene that cannot be used.
    """
    if content.startswith(_PNG):
        return _read_png(content, canvas, limits, vocabulary)
    if content.startswith(_JPEG) or (content.startswith(_WEBP) and content[8:12] == b"WEBP"):
        check_picture(content, limits)
        return {"kind": "reference", "reason": "it is a photograph"}
    if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"[", b"<"):
        raise RefusedError("file: it is neither a scene (JSON, XML) nor a PNG, JPEG or WebP picture")
    return _scene(check(content, limits, vocabulary))


def _scene(checked: Checked, **more: Any) -> dict[str, Any]:
    scene = checked.settled().in_network_kinds()  # the page draws these, and keeps no others
    return {
        "kind": "scene",
        "scene": scene.to_dict(),
        "text": scene_text(scene),
        "format": checked.format,
        "problems": checked.shown(),
        **more,
    }


def _read_png(content: bytes, canvas: tuple[int, int], limits: Limits, vocabulary: Collection[str]) -> dict[str, Any]:
    if len(content) < 24:
        raise RefusedError("file: the PNG is cut off")
    width, height = struct.unpack(">II", content[16:24])
    if width * height > limits.image_pixels or not width or not height:
        raise RefusedError(f"file: a picture of {width} x {height} pixels is too large; make it smaller")
    check_picture(content, limits)
    try:
        notes = read_notes(io.BytesIO(content))
    except (InstanceDiffusionError, RecursionError):
        raise RefusedError("file: the notes in this PNG are damaged") from None
    if "scene" in notes:
        checked = check(json.dumps(notes["scene"]), limits, vocabulary)
        seed, settings = notes.get("seed"), notes.get("settings")
        return _scene(
            checked,
            seed=exact_seed(seed) if isinstance(seed, int) and not isinstance(seed, bool) else None,
            settings=settings if isinstance(settings, dict) else None,
        )
    if (height, width) != canvas:
        reason = f"it has {width} x {height} pixels, and a mask for this canvas {canvas[1]} x {canvas[0]}"
        return {"kind": "reference", "reason": reason}
    if not _has_two_values(content):
        return {"kind": "reference", "reason": "it has more than two colours, and a mask is black and white"}
    try:
        mask = Mask.from_png(content, canvas)
    except SceneError as error:
        raise RefusedError(f"file: the mask {error.problems[0].message}") from None
    return {"kind": "mask", "mask": {"size": list(mask.size), "counts": mask.counts}}


def check_picture(content: bytes, limits: Limits) -> None:
    """Unpack a picture once, so that what the page gets is known to be whole."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG", "JPEG", "WEBP"]) as image:
            if image.width * image.height > limits.image_pixels:
                raise RefusedError(f"file: a picture of {image.width} x {image.height} pixels is too large")
            image.load()
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, struct.error, Image.DecompressionBombError) as e:
        raise RefusedError(
            f"file: the picture is damaged ({str(e).splitlines()[0][:80] if str(e) else 'cut off'})"
        ) from None


def _has_two_values(content: bytes) -> bool:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.mode == "1":
            return True
        if image.mode == "P":
            return len(np.unique(np.asarray(image))) <= 2
        pixels = np.asarray(image.convert("RGBA")).reshape(-1, 4)
        # Smooth edges have values between; what counts is that nearly all pixels are one of two.
        shades, counts = np.unique(pixels[:: max(1, len(pixels) // 100_000)], axis=0, return_counts=True)
        return bool(len(shades) <= 2 or np.sort(counts)[-2:].sum() >= 0.97 * counts.sum())
