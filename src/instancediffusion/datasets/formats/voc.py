"""Pascal VOC: `Annotations/*.xml` and `JPEGImages/`; boxes of whole pixels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from instancediffusion.runs import write_atomic
from instancediffusion.scene import ReadOptions
from instancediffusion.scene.canvas import Canvas
from instancediffusion.scene.formats.foreign.xml_files import parse_xml, read_voc
from instancediffusion.scene.problem_report import Report

from ..dataset_format import DatasetFormat, ReadingOptions, register
from ..dataset_notes import Entry
from ..example import Example, LazyDataset
from ..file_access import files_under, find_picture, read_bounded, save_text
from .shared import example_of, kind_of, one_line, pixel_box, whole_boxes


def _folder(path: Path) -> Path:
    return path / "Annotations" if (path / "Annotations").is_dir() else path


def recognise(path: Path) -> bool:
    """Whether a path is a folder of Pascal VOC files."""
    first = next(iter(sorted(_folder(path).glob("*.xml"))), None) if path.is_dir() else None
    return first is not None and kind_of(first) == "voc"


def read(path: Path, options: ReadingOptions) -> LazyDataset[Path]:
    """Open a folder; a split is a list of names in `ImageSets/Main`."""
    files = files_under(_folder(path), (".xml",))
    if options.split is not None:
        listed = path / "ImageSets" / "Main" / f"{Path(options.split).name}.txt"
        names = {line.split()[0] for line in read_bounded(listed).decode("utf-8-sig").splitlines() if line.split()}
        files = [file for file in files if file.stem in names]
    folders = [options.images] if options.images is not None else []
    folders += [path / "JPEGImages", path / "images", path]

    def read_one(report: Report, file: Path) -> Example | None:
        root = parse_xml(read_bounded(file).decode("utf-8-sig", "replace"))
        if root is None or root.tag != "annotation":
            report.warn("$", f"{file.name}: is no Pascal VOC file, is damaged, or declares entities: left out")
            return None
        found = read_voc(root, report, ReadOptions(folder=file.parent, name=file.name))
        if not found or report.failed:
            return None
        name = found[0].file_name or f"{file.stem}.jpg"
        return example_of(found[0], find_picture([*folders, file.parent], name), name)

    return LazyDataset(os.fspath(path), files, read_one)


def adjust(example: Example, lost: Counter[str]) -> Example:
    """Boxes become whole pixels, labels XML texts."""
    return whole_boxes(one_line(example, lost), lost)


def describe(example: Example) -> str:
    """The XML of an example, but for the name of its picture. Corners count pixels from 0."""
    canvas = Canvas(example.scene.width, example.scene.height)
    root = ET.Element("annotation")
    size = ET.SubElement(root, "size")
    for key, value in (("width", canvas.width), ("height", canvas.height), ("depth", 3)):
        ET.SubElement(size, key).text = str(value)
    ET.SubElement(root, "segmented").text = "0"
    for index, instance in enumerate(example.scene.instances):
        assert instance.box is not None, "held() leaves boxes"
        item = ET.SubElement(root, "object")
        ET.SubElement(item, "name").text = example.category(index)
        for key, text in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            ET.SubElement(item, key).text = text
        corners = ET.SubElement(item, "bndbox")
        for key, corner in zip(("xmin", "ymin", "xmax", "ymax"), pixel_box(instance.box, canvas), strict=True):
            ET.SubElement(corners, key).text = str(corner)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def write(entries: Iterator[Entry], folder: Path, categories: Mapping[int | str, str]) -> None:  # noqa: ARG001
    """Write `Annotations`, `JPEGImages` and `ImageSets/Main/train.txt`."""
    names, head = [], "<annotation>\n"
    for entry in entries:
        entry.save(folder / "JPEGImages")
        named = f"  <folder>JPEGImages</folder>\n  <filename>{escape(entry.file_name)}</filename>\n"
        stem = Path(entry.file_name).stem
        save_text(folder / "Annotations" / f"{stem}.xml", head + named + entry.content.removeprefix(head))
        names.append(stem)
    write_atomic(folder / "ImageSets" / "Main" / "train.txt", "".join(f"{name}\n" for name in names))


VOC = register(DatasetFormat("voc", "Pascal VOC", frozenset({"box"}), recognise, read, write, adjust, describe))
