"""COCO files to scenes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import json_text
from ...canvas import Canvas
from ...checks import check_object, check_text, is_array
from ...limits import MAX_COCO_BYTES, MAX_SIDE_PX, MIN_SIDE_PX
from ...model import KINDS, Instance, Scene
from ...problem_report import Report, child, kind, show
from ..foreign.entries import read_entries, whole_number
from .annotations import read_annotation
from .coco_scene import CocoScene, Key, key_of

Source = str | os.PathLike[str] | Mapping[str, Any]
"""A COCO file, or what `json.load` gives of one."""

_Entries = list[tuple[str, Mapping[str, Any]]]


def read_coco(
    instances: Source,
    captions: Source | None = None,
    *,
    image_ids: Collection[int | str] | None = None,
    kinds: Collection[str] = KINDS,
) -> list[CocoScene]:
    """Read the scenes of a COCO instances file.

    The caption of an instance is its own if the annotation has one, else the name of its category. The prompt is the
    picture's first caption, else the instances' captions, joined by commas. Crowd regions are no instances and are
    skipped. What cannot be used (a box of no size, a picture without a word) is left out with a `SceneWarning`; so
    are pictures that share an id, because their annotations cannot be assigned. Of a panoptic file the boxes of the
    segments are read.

    Args:
        instances: the file with images, annotations and categories.
        captions: the file with the captions of the same images.
        image_ids: read these pictures only.
        kinds: read these kinds of location only; `box` and `mask` are what COCO itself has.

    Raises:
        SceneError: the file is not COCO, with every problem found.
        OSError: a file cannot be opened.
    """
    report = Report(lenient=True)
    data = _open(report, instances)
    texts = _open(report, captions) if captions is not None else None
    scenes: list[CocoScene] = []
    if data is not None and (captions is None or texts is not None):
        scenes = read_coco_data(data, report, texts, image_ids=image_ids, kinds=kinds)
    report.settle(None if isinstance(instances, Mapping) else os.fspath(instances))
    return scenes


def read_coco_data(
    data: Mapping[str, Any],
    report: Report,
    captions: Mapping[str, Any] | None = None,
    *,
    image_ids: Collection[int | str] | None = None,
    kinds: Collection[str] = KINDS,
) -> list[CocoScene]:
    """Read the scenes of JSON data, as `read_coco` does.

    Args:
        data: what `json.load` gives.
        report: takes every problem; an error is what makes the whole file unusable.
        captions: the data of the captions file.
        image_ids: see `read_coco`.
        kinds: see `read_coco`.
    """
    for content in (data,) if captions is None else (data, captions):
        check_lists(report, content)
    if report.failed:
        return []
    file = CocoFile(report, data, captions, None if image_ids is None else {key_of(value) for value in image_ids})
    file.warn_of_kind()
    scenes = []
    for path, image in file.images:
        entry = Report(lenient=True)
        found = read_image(entry, path, image, file, kinds)
        report.adopt(entry)
        if found is not None:
            scenes.append(found)
    return scenes


@dataclass
class CocoFile:
    """The parts of a COCO file, by their ids; `read_image` reads one of its pictures.

    Attributes:
        report: takes every problem.
        data: the instances file.
        texts: the captions file, or None.
        wanted: ids of the pictures to be read; None means all.
        images: path and entry of each picture to be read.
        names: category -> its name.
        prompts: picture -> its first caption.
        annotations: picture -> its annotations.
    """

    report: Report
    data: Mapping[str, Any]
    texts: Mapping[str, Any] | None
    wanted: Collection[Key | None] | None
    images: _Entries = field(default_factory=list)
    names: dict[Key, str] = field(default_factory=dict)
    prompts: dict[Key, str] = field(default_factory=dict)
    annotations: dict[Key, _Entries] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._objects = list(_items(self.report, self.data, "annotations"))
        self.names = self._names()
        self.prompts = self._prompts()
        self._group_annotations()
        self.images = self._unambiguous(list(_items(self.report, self.data, "images")))

    def warn_of_kind(self) -> None:
        """Report a file of a kind whose annotations are no instances, so that scenes without any are no surprise."""
        entries = [item for _, item in self._objects]
        if any("segments_info" in item for item in entries):
            message = "is a COCO panoptic file: the boxes of its segments are read, its masks are in PNG files"
            self.report.warn("$", message, "give the instances file for masks")
        elif entries and not any(self.annotations.values()):
            message = "is a COCO captions file: it has prompts, and no object has a location"
            self.report.warn("$", message, "give the instances file, and this one with --captions")

    def _names(self) -> dict[Key, str]:
        names: dict[Key, str] = {}
        twice: set[Key] = set()
        for path, item in _items(self.report, self.data, "categories") if "categories" in self.data else ():
            entry = Report()
            number = _key(entry, path, item, "id")
            name = check_text(entry, child(path, "name"), item.get("name"), what="name")
            self.report.adopt(entry)
            if number is None or name is None:
                continue
            if names.get(number, name) != name:
                message = f"category {show(number)} is named {show(names[number])} and {show(name)}"
                self.report.warn(path, f"{message}: its objects are left out", "give every category an id of its own")
                twice.add(number)
            names[number] = name
        return {number: name for number, name in names.items() if number not in twice}

    def _prompts(self) -> dict[Key, str]:
        """The first caption of each picture. Entries with a category are instances, not captions of a picture."""
        prompts: dict[Key, str] = {}
        texts = self._objects if self.texts is None else _items(self.report, self.texts, "annotations")
        for path, item in texts:
            if "category_id" in item or "bbox" in item or "caption" not in item:
                continue
            entry = Report()
            image_id = _key(entry, path, item, "image_id")
            prompt = check_text(entry, child(path, "caption"), item["caption"], what="caption")
            self.report.adopt(entry)
            if image_id is not None and prompt is not None:
                prompts.setdefault(image_id, prompt.strip())
        return prompts

    def _group_annotations(self) -> None:
        for path, item in self._objects:
            segments = item.get("segments_info")
            if not is_array(segments) and not {"category_id", "bbox", "segmentation"} & item.keys():
                continue
            entry = Report()
            image_id = _key(entry, path, item, "image_id")
            self.report.adopt(entry)
            if image_id is None:
                continue
            group = self.annotations.setdefault(image_id, [])
            if is_array(segments):
                where = child(path, "segments_info")
                group += [(child(where, i), part) for i, part in enumerate(segments) if isinstance(part, Mapping)]
            else:
                group.append((path, item))

    def _unambiguous(self, images: _Entries) -> _Entries:
        """The pictures to be read; of those that share an id none, unless they are the same entry again."""
        known: dict[Key, _Entries] = {}
        for path, image in images:
            number = key_of(image.get("id"))
            if number is None:
                _key(entry := Report(), path, image, "id")
                self.report.adopt(entry)
            elif self.wanted is None or number in self.wanted:
                known.setdefault(number, []).append((path, image))
        kept = []
        for number, group in known.items():
            files = list(dict.fromkeys(show(image.get("file_name")) for _, image in group))
            if len(files) == 1:
                if len(group) > 1:
                    self.report.warn(group[1][0], f"is image {show(number)} ({files[0]}) again: read once")
                kept.append(group[0])
            else:
                message = f"image {show(number)} is {len(files)} pictures ({', '.join(files[:4])}): left out"
                fix = "their annotations cannot be assigned; give every picture an id of its own"
                self.report.warn(group[0][0], message, fix)
        return kept


def _open(report: Report, source: Source) -> Mapping[str, Any] | None:
    if isinstance(source, Mapping):
        return source
    with open(source, "rb") as file:
        content = file.read(MAX_COCO_BYTES + 1)
    if len(content) > MAX_COCO_BYTES:
        report.error("$", f"is larger than {MAX_COCO_BYTES >> 20} MB", "split it")
        return None
    data = json_text.parse(report, content)
    return check_object(report, "$", data) if data is not None or not report.failed else None


def check_lists(report: Report, data: Mapping[str, Any]) -> None:
    """Note lists of the file that are missing or no lists; without categories, annotations may have captions."""
    for key in ("images", "annotations", *(["categories"] if "categories" in data else [])):
        if not is_array(data.get(key)):
            found = f"is {kind(data[key])}, not an array" if key in data else "is missing"
            report.error(child("$", key), found, "give a COCO file with images and annotations")


def _items(report: Report, data: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and content of each object of a list."""
    for index, item in enumerate(data[key]):
        path = child(child("$", key), index)
        if isinstance(item, Mapping):
            yield path, item
        else:
            report.warn(path, f"is {kind(item)}, not an object: left out", "write {...}")


def _key(report: Report, path: str, item: Mapping[str, Any], key: str) -> Key | None:
    if key not in item:
        report.error(child(path, key), "is missing", "give every entry its numbers")
        return None
    found = key_of(item[key])
    if found is None:
        report.error(child(path, key), f"is {show(item[key])}, no number", "give every entry its numbers")
    return found


def read_image(
    report: Report, path: str, image: Mapping[str, Any], file: CocoFile, kinds: Collection[str]
) -> CocoScene | None:
    """Read one of `file.images`, given by its path and content; None if it cannot be used, which is noted."""
    image_id = key_of(image.get("id"))
    canvas = _canvas(report, path, image)
    file_name = image.get("file_name", f"{image_id:012d}.jpg" if isinstance(image_id, int) else f"{image_id}.jpg")
    if not isinstance(file_name, str):
        report.error(child(path, "file_name"), f"is {kind(file_name)}, not a string", "name the picture")
    if canvas is None or image_id is None or report.failed:
        return None
    origin: dict[int, Mapping[str, Any]] = {}

    def read(entry: Report, where: str, item: Mapping[str, Any]) -> Instance | None:
        instance = read_annotation(entry, where, item, canvas, file.names, kinds)
        origin[id(instance)] = item
        return instance

    found = read_entries(report, file.annotations.get(image_id, []), read)
    prompt = file.prompts.get(image_id) or ", ".join(dict.fromkeys(instance.caption for instance in found))
    if not prompt:
        crowd = "an instance that can be used" if file.annotations.get(image_id) else "an instance"
        report.fault(path, f"image {show(image_id)} has neither a caption nor {crowd}", "see the lines above, if any")
        return None
    negative = image.get("negative_prompt")
    if negative is not None:
        where = child(path, "negative_prompt")
        negative = check_text(report, where, negative, what="negative prompt", blank=True)
    scene = Scene(prompt, tuple(found), canvas.width, canvas.height, negative)
    return CocoScene(image_id, file_name, scene, tuple(origin[id(instance)] for instance in found))


def _canvas(report: Report, path: str, image: Mapping[str, Any]) -> Canvas | None:
    width, height = (whole_number(image.get(key)) for key in ("width", "height"))
    if width is None or height is None or not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in (width, height)):
        missing = [key for key in ("width", "height") if key not in image]
        message = f"states no {' and '.join(missing)}"
        if not missing:
            message = (
                f"is {show(image['width'])} x {show(image['height'])} pixels, no size of a picture that can be made"
            )
        fix = f"give the picture's size; sides are whole numbers in {MIN_SIDE_PX}..{MAX_SIDE_PX}"
        report.error(path, f"({_name_of(image)}) {message}", fix)
        return None
    return Canvas(width, height)


def _name_of(image: Mapping[str, Any]) -> str:
    """What a message calls a picture: its file, else its id."""
    name = image.get("file_name")
    return name[:60] if isinstance(name, str) and name else f"image {show(image.get('id'))}"
