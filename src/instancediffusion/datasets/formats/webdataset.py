"""WebDataset: tar files of pictures, each with a JSON file of the same key. Nothing is ever unpacked to the disk."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instancediffusion.runs import atomic_path, write_json
from instancediffusion.scene import Scene, json_text
from instancediffusion.scene.canvas import Canvas
from instancediffusion.scene.checks import check_text, is_array
from instancediffusion.scene.formats.coco.coco_scene import key_of
from instancediffusion.scene.formats.foreign.entries import picture_size_of
from instancediffusion.scene.formats.native import read_native, write_native
from instancediffusion.scene.limits import MAX_FILE_BYTES, PICTURE_SUFFIXES
from instancediffusion.scene.problem_report import Report

from ..dataset_format import DatasetFormat, ReadingOptions, register
from ..dataset_notes import Entry
from ..example import MAX_PICTURE_BYTES, Example, LazyDataset
from ..file_access import MAX_ENTRIES, Numbers, read_json, refuse
from ..holding import EVERYTHING
from .shared import read_visible, runs_of

SHARD_BYTES, SHARD_PICTURES = 1 << 30, 10_000
_CATEGORIES = "categories.json"


@dataclass(frozen=True)
class _Member:
    shard: Path
    offset: int
    size: int

    def read(self, limit: int) -> bytes:
        if self.size > limit:
            raise refuse(self.shard, f"holds a file of {self.size} bytes", f"those read have at most {limit}")
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) != self.size:
            raise refuse(self.shard, "is cut off", "copy it anew")
        return data


def _shards(path: Path, split: str | None = None) -> list[Path]:
    if path.is_file():
        return [path]
    folder = path / split if split is not None and (path / split).is_dir() else path
    found = sorted(shard for shard in folder.glob("*.tar") if shard.is_file())
    if split is not None and folder == path:
        found = [shard for shard in found if shard.name.startswith(split)]
    return found


def recognise(path: Path) -> bool:
    """Whether a path is a tar file, or a folder of them."""
    return path.suffix.lower() == ".tar" if path.is_file() else bool(_shards(path))


def read(path: Path, options: ReadingOptions) -> LazyDataset[tuple[str, dict[str, _Member]]]:
    """Open shards: their tables of contents are read at once, pictures and JSON when they are asked for.

    The JSON of a picture is a scene in the native format, or what `write` makes of it; a picture with a `.txt` alone
    has a prompt and no instance.
    """
    entries: list[tuple[str, dict[str, _Member]]] = []
    for shard in _shards(path, options.split):
        entries += _contents(shard)
        if len(entries) > MAX_ENTRIES:
            raise refuse(shard, "is one shard too many", f"at most {MAX_ENTRIES} pictures are read")
    file = (path if path.is_dir() else path.parent) / _CATEGORIES
    named = read_json(file) if file.is_file() else []
    categories: dict[int | str, str] = {}
    for item in named if is_array(named) else ():
        number = key_of(item.get("id")) if isinstance(item, Mapping) else None
        if number is not None and isinstance(item.get("name"), str):
            categories[number] = item["name"]
    return LazyDataset(os.fspath(path), entries, _read_one, categories)


def _contents(shard: Path) -> list[tuple[str, dict[str, _Member]]]:
    """Keys of a shard, with the files of each. Links and devices are no files; names are keys, never paths."""
    found: dict[str, dict[str, _Member]] = {}
    end = shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                if not info.isreg() or info.issparse() or info.offset_data + info.size > end:
                    continue
                folder, slash, last = info.name.rpartition("/")
                stem, dot, suffix = last.partition(".")
                key = f"{folder}{slash}{stem}"
                if dot and not last.startswith("."):
                    found.setdefault(key, {})[f".{suffix.lower()}"] = _Member(shard, info.offset_data, info.size)
                if len(found) > MAX_ENTRIES:
                    break
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        message = f"is no tar file that can be read ({str(error)[:60]})"
        raise refuse(shard, message, "compressed shards are not read; unpack them to .tar") from None
    pictures, texts = {*PICTURE_SUFFIXES}, {".json", ".txt"}
    return [(key, files) for key, files in found.items() if files.keys() & pictures and files.keys() & texts]


def _read_one(report: Report, entry: tuple[str, dict[str, _Member]]) -> Example | None:
    key, files = entry
    suffix = next(suffix for suffix in PICTURE_SUFFIXES if suffix in files)
    image = files[suffix].read(MAX_PICTURE_BYTES)
    data: Any = json_text.parse(report, files[".json"].read(MAX_FILE_BYTES)) if ".json" in files else {}
    if report.failed or not isinstance(data, Mapping):
        report.warn("$", f"the JSON of {key[:80]!r} is no object: left out")
        return None
    content = data.get("scene", data)
    if isinstance(content, Mapping) and "instances" in content:
        part = Report()  # a scene of ours is read as strictly as a scene file
        scene = read_native(content, part)
        report.problems += part.problems
    else:
        scene = _prompt_only(report, key, files, data, image)
    if scene is None:
        return None
    count, canvas = len(scene.instances), Canvas(scene.width, scene.height)
    names, masks = data.get("categories"), data.get("visible")
    categories = tuple(map(str, names)) if is_array(names) and len(names) == count else ()
    visible = masks if is_array(masks) and len(masks) == count else ()
    seen = tuple(read_visible(report, "$.visible", mask, canvas) for mask in visible)
    number = data.get("image_id")
    image_id = number if isinstance(number, int | str) and not isinstance(number, bool) else key
    name = data.get("file_name")
    file_name = name if isinstance(name, str) else key + suffix
    return Example(scene, image, file_name, image_id, categories, seen if any(seen) else ())


def _prompt_only(
    report: Report, key: str, files: Mapping[str, _Member], data: Mapping[str, Any], image: bytes
) -> Scene | None:
    prompt = files[".txt"].read(MAX_FILE_BYTES).decode("utf-8", "replace") if ".txt" in files else data.get("caption")
    size = picture_size_of(image)
    if size is None or check_text(Report(), "$", prompt, what="prompt") is None:
        message = f"{key[:80]!r} has no scene, and no prompt or no picture that can be read: left out"
        report.warn("$", message, "write a scene of the native format as its JSON")
        return None
    return Scene(str(prompt), (), *size)


def write(entries: Iterator[Entry], folder: Path, categories: Mapping[int | str, str]) -> None:
    """Write `00000.tar`, `00001.tar`, ... of at most 10,000 pictures or about 1 GB, and the numbers of categories."""
    number, pending, ids = 0, next(entries, None), Numbers(1)
    while pending is not None:
        with atomic_path(folder / f"{number:05d}.tar") as temporary, tarfile.open(temporary, "w") as tar:
            count = 0
            while pending is not None and count < SHARD_PICTURES and tar.offset < SHARD_BYTES:
                _add(tar, f"{number:05d}{count:05d}", pending, ids.own_or_free(pending.image_id))
                pending, count = next(entries, None), count + 1
        number += 1
    write_json(folder / _CATEGORIES, [{"id": number, "name": name} for number, name in categories.items()])


def _add(tar: tarfile.TarFile, key: str, entry: Entry, image_id: int | str) -> None:
    example: Example = entry.content
    data: dict[str, Any] = {"scene": write_native(example.scene), "file_name": example.file_name}
    data |= {"image_id": image_id, "categories": list(example.categories)}
    if example.visible:
        data["visible"] = [runs_of(mask) for mask in example.visible]
    assert isinstance(example.image, bytes)
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    for suffix, content in ((Path(example.file_name).suffix.lower(), example.image), (".json", text)):
        info = tarfile.TarInfo(key + suffix)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


WEBDATASET = register(DatasetFormat("webdataset", "WebDataset", EVERYTHING, recognise, read, write))
