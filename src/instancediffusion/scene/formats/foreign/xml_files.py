"""Annotations in XML: Pascal VOC (one file for each picture) and CVAT for images."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from ...canvas import Canvas
from ...limits import MAX_Z_ORDER
from ...locations import read_runs
from ...model import Instance, Scene
from ...problem_report import Report
from ..scene_format import SceneFormat, register
from .entries import (
    NamedScene,
    ReadOptions,
    box_of,
    canvas_of,
    ellipse_of,
    make_instance,
    make_scene,
    placed,
    plain_number,
    plain_numbers,
    polygon_of,
    read_entries,
    scene_name,
    stroke_of,
    whole_number,
)


def parse_xml(text: str) -> ET.Element | None:
    """The root of an XML text, or None. One that declares entities is not parsed: a few lines can fill the memory."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return ET.fromstring(text.encode())
    except (ET.ParseError, ValueError, RecursionError):
        return None


def read_voc(root: ET.Element, report: Report, options: ReadOptions) -> list[NamedScene]:
    """Read the one scene of a Pascal VOC file.

    Its corners count pixels from 1 in the original files and from 0 in those of most tools, and do not say which;
    they are taken as they are, to the pixel.
    """
    size = root.find("size")
    sides = [size.findtext(name) if size is not None else None for name in ("width", "height")]
    picture = root.findtext("filename") or root.findtext("path") or ""
    canvas = canvas_of(report, "/annotation/size", sides[0], sides[1], options, picture)
    if canvas is None:
        return []

    def read(entry: Report, path: str, item: ET.Element) -> Instance | None:
        corners = plain_numbers([item.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")])
        if corners is None:
            entry.fault(path, "has no bndbox of four numbers", "give it xmin, ymin, xmax and ymax")
            return None
        return make_instance(entry, path, item.findtext("name"), box=box_of(entry, path, corners, canvas))

    entries = [(f"/annotation/object[{index + 1}]", item) for index, item in enumerate(root.iter("object"))]
    instances = read_entries(report, entries, read)
    scene = make_scene(report, None, instances, canvas)
    return [] if scene is None else [NamedScene(scene_name(picture or options.name), scene, 1, picture)]


def read_cvat(root: ET.Element, report: Report, options: ReadOptions) -> list[NamedScene]:
    """Read the scenes of a CVAT file; `z_order` is kept where shapes of a picture differ in it."""
    found: list[NamedScene] = []
    if root.find("track") is not None:
        report.error("/annotations", "is a CVAT file of a video, with tracks", "export as `CVAT for images`")
        return found
    for index, image in enumerate(root.iter("image")):
        path = f"/annotations/image[{index + 1}]"
        entry = Report(lenient=True)
        scene = read_cvat_image(entry, path, image, options)
        report.adopt(entry)
        if scene is not None:
            picture = image.get("name", "")
            identity = whole_number(image.get("id"))
            number = identity if identity is not None else index + 1
            found.append(NamedScene(scene_name(picture or str(number)), scene, number, picture))
    return found


def read_cvat_image(report: Report, path: str, image: ET.Element, options: ReadOptions) -> Scene | None:
    """Read one `<image>` of a CVAT file; None if it cannot be used, which is noted."""
    canvas = canvas_of(report, path, image.get("width"), image.get("height"), options, image.get("name", ""))
    if canvas is None:
        return None
    shapes = [item for item in image if item.get("label") is not None and item.tag != "tag"]
    layered = len({item.get("z_order") for item in shapes}) > 1

    def read(entry: Report, where: str, item: ET.Element) -> Instance | None:
        layer = whole_number(item.get("z_order")) if layered else None
        layer = layer if layer is None or abs(layer) <= MAX_Z_ORDER else None
        location = _location(entry, where, item, canvas)
        return make_instance(entry, where, item.get("label"), **placed(location), z_order=layer)

    entries = [(f"{path}/{item.tag}[{index + 1}]", item) for index, item in enumerate(shapes)]
    return make_scene(report, None, read_entries(report, entries, read), canvas)


def _location(report: Report, path: str, item: ET.Element, canvas: Canvas) -> Any:
    def numbers(*names: str) -> list[float] | None:
        return plain_numbers([item.get(name) for name in names])

    turn = plain_number(item.get("rotation")) or 0.0
    if item.tag == "box" and (corners := numbers("xtl", "ytl", "xbr", "ybr")) is not None:
        if not turn:
            return box_of(report, path, corners, canvas)
        x, y = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
        return _turned_box(report, path, (x, y), (corners[2] - corners[0], corners[3] - corners[1]), turn, canvas)
    if item.tag == "ellipse" and (form := numbers("cx", "cy", "rx", "ry")) is not None:
        return ellipse_of(report, path, (form[0], form[1]), (form[2], form[3]), canvas, turn)
    if item.tag == "mask" and (frame := numbers("left", "top", "width", "height")) is not None:
        runs = plain_numbers([run for run in item.get("rle", "").split(",") if run.strip()])
        if runs is not None:
            return read_runs(report, path, [int(run) for run in runs], tuple(map(int, frame)), canvas)
    if item.tag in ("polygon", "polyline", "points"):
        points = [plain_numbers(pair.split(","), 2) for pair in item.get("points", "").split(";")]
        if all(point is not None for point in points):
            whole = [point for point in points if point is not None]
            return (polygon_of if item.tag == "polygon" else stroke_of)(report, path, whole, canvas)
    report.fault(path, f"is a {item.tag} that cannot be read", "use boxes, polygons, polylines, points or masks")
    return None


def _turned_box(
    report: Report, path: str, centre: tuple[float, float], sides: tuple[float, float], degrees: float, canvas: Canvas
) -> Any:
    from math import cos, radians, sin

    c, s = cos(radians(degrees)), sin(radians(degrees))
    half = [(x * sides[0] / 2, y * sides[1] / 2) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return polygon_of(report, path, [(centre[0] + x * c - y * s, centre[1] + x * s + y * c) for x, y in half], canvas)


def _is_voc(root: ET.Element) -> bool:
    return root.tag == "annotation" and root.find("object") is not None


def _is_cvat(root: ET.Element) -> bool:
    return root.tag == "annotations" and (root.find("image") is not None or root.find("track") is not None)


VOC = register(SceneFormat("voc", "a Pascal VOC file", "xml", _is_voc, read_voc))
CVAT = register(SceneFormat("cvat", "a CVAT file", "xml", _is_cvat, read_cvat))
