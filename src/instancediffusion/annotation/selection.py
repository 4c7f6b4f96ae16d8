"""From detections to objects: which boxes stay, what of a mask belongs to one, how a caption is put."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from instancediffusion.geometry import box_iou, clip_boxes, mask_box
from instancediffusion.scene import Mask

from .protocols import Detection, PixelBox

_SEPARATORS = re.compile(r"[.,;:?!()\[\]{}\"\s]+")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_LONGEST_TAG, _LONGEST_CAPTION = 80, 1000


def clean_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags in small letters, each once, in their order.

    Punctuation, which a detector's prompt uses to separate tags, becomes blanks, and words that a tagger stutters
    ("coffee coffee cup cup") stand once.
    """
    found: dict[str, None] = {}
    for tag in tags:
        words = one_line(_SEPARATORS.sub(" ", tag.lower())).split()
        kept = [word for index, word in enumerate(words) if index == 0 or word != words[index - 1]]
        text = " ".join(kept)[:_LONGEST_TAG].strip()
        if text:
            found.setdefault(text)
    return tuple(found)


def one_line(text: str) -> str:
    """A text without line breaks, control characters and blanks around it."""
    return _BLANKS.sub(" ", text).strip()[:_LONGEST_CAPTION].rstrip()


def instance_caption(tag: str, described: str) -> str:
    """The caption of an instance: the description, led by the tag where it does not say that word itself.

    Whole words are compared ("cat" is not in "cattle"); the plural of a tag counts.
    """
    caption = one_line(described)
    if not caption:
        return tag
    said = re.findall(r"\w+", caption.lower())
    wanted = re.findall(r"\w+", tag.lower())
    forms = {word for last in wanted[-1:] for word in (last, f"{last}s", f"{last}es")}
    for start in range(len(said) - len(wanted) + 1):
        part = said[start : start + len(wanted)]
        if part[:-1] == wanted[:-1] and part[-1] in forms:
            return caption
    return f"{tag}. {caption}"


def kept_detections(
    detections: Sequence[Detection],
    size: tuple[int, int],
    *,
    score: float,
    same_tag_iou: float,
    any_tag_iou: float,
    limit: int,
) -> list[Detection]:
    """The detections that are objects, best first, cut off at the picture.

    The published recipe suppresses boxes whatever their tags at IoU 0.5, and so drops the rider of a horse: exactly
    the overlaps that a model of depth order is to learn. Here that holds within a tag; between tags only boxes that
    are almost the same are taken for one object.

    Args:
        detections: of one picture.
        size: (width, height) of the picture in pixels.
        score: the lowest score that counts.
        same_tag_iou: two boxes with one tag are one object beyond it.
        any_tag_iou: two boxes with different tags are one object beyond it.
        limit: how many are kept.
    """
    width, height = size
    found: list[Detection] = []
    for one in sorted(detections, key=lambda one: -one.score):
        if not (np.isfinite(one.box).all() and np.isfinite(one.score)) or one.score < score:
            continue
        x0, y0, x1, y1 = (float(value) for value in clip_boxes([one.box], width, height)[0])
        if x1 - x0 < 1 or y1 - y0 < 1:
            continue
        box = (x0, y0, x1, y1)
        bounds = [same_tag_iou if other.tag == one.tag else any_tag_iou for other in found]
        overlaps = box_iou([box], [other.box for other in found])[0] if found else ()
        if all(overlap <= bound for overlap, bound in zip(overlaps, bounds, strict=True)):
            found.append(Detection(one.tag, float(one.score), box))
        if len(found) == limit:
            break
    return found


def fitted_mask(mask: Mask | None, box: PixelBox, *, leak: float, agreement: float) -> Mask | None:
    """What of a mask belongs to the object in a box, or None if the two do not agree.

    Args:
        mask: on the picture's canvas.
        box: in pixels.
        leak: how far the mask may leave the box, in fractions of its sides.
        agreement: the least IoU of the mask's own box with the given one.
    """
    if mask is None:
        return None
    height, width = mask.size
    x0, y0, x1, y1 = box
    across, down = leak * (x1 - x0), leak * (y1 - y0)
    left, top = max(int(np.floor(x0 - across)), 0), max(int(np.floor(y0 - down)), 0)
    right, bottom = min(int(np.ceil(x1 + across)), width), min(int(np.ceil(y1 + down)), height)
    array = mask.array
    cut = np.zeros_like(array)
    cut[top:bottom, left:right] = array[top:bottom, left:right]
    own = mask_box(cut)
    if own is None:
        return None
    scaled = (own[0] * width, own[1] * height, own[2] * width, own[3] * height)
    return Mask.from_array(cut) if box_iou([scaled], [box])[0, 0] >= agreement else None
