"""A run over many pictures: what is done stays done, what fails is kept aside, the data set is written at the end.

Beside the data set `NAME` stands the run directory `NAME.records`: a record for each picture, and which failed and why.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from instancediffusion import __version__
from instancediffusion.datasets import (
    Example,
    LazyDataset,
    Notes,
    SceneDataset,
    Written,
    bring_back,
    files_in,
    format_of,
    put_in_place,
    write_dataset,
)
from instancediffusion.datasets.formats.shared import read_visible, runs_of
from instancediffusion.errors import SceneError, SettingsError
from instancediffusion.ray_pool import RayOptions, ray_map
from instancediffusion.runs import MANIFEST, Item, RunDirectory, fingerprint, write_atomic, write_json
from instancediffusion.scene.canvas import Canvas
from instancediffusion.scene.formats.native import read_native, write_native
from instancediffusion.scene.problem_report import Report

from .annotate import annotate
from .annotation_settings import AnnotationSettings
from .known_pictures import KnownPictures
from .protocols import Stages
from .selection import one_line
from .unlabelled_pictures import content_of, key_of

KIND = "annotate"
FAILED = "failed.jsonl"
KNOWN, NOTES, FRESH, REPLACED = ".known.json", ".notes.jsonl", ".new", ".old"
"""What may be lost without any harm; a store is not sent it."""

SENT_BYTES = 1 << 30
"""Files of pictures that are sent to a cluster at a time; the models there are loaded once for each such part."""


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        annotated: pictures that were not done yet, those that failed now among them.
        skipped: pictures that were done already, or had failed before.
        failed: picture -> why, of this run and of those before.
        written: the data set, if it was written anew.
    """

    annotated: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    written: Written | None = None


@dataclass(frozen=True)
class Target:
    """Where results go.

    Attributes:
        folder: the data set.
        format: its format.
        overwrite: replace records of other settings, and a data set that was changed since.
        retry: try pictures again that failed before.
    """

    folder: Path
    format: str = "coco"
    overwrite: bool = False
    retry: bool = False

    @property
    def records(self) -> Path:
        """The run directory."""
        return self.folder.with_name(f"{self.folder.name}.records")


def annotate_dataset(
    dataset: SceneDataset,
    target: Target,
    settings: AnnotationSettings,
    pins: Mapping[str, Mapping[str, Any]],
    build: Callable[[], Stages],
    told: Callable[[int, int], None] | None = None,
    engine: RayOptions | None = None,
) -> Outcome:
    """Annotate all pictures, as far as they are not done, and write the data set.

    Pictures go through the models in batches of neighbours. A batch of which anything is missing is computed as a
    whole, so that a run that was killed and started again gives the same numbers as one that was not. A batch that
    fails is tried again picture by picture.

    Args:
        dataset: the pictures; see `annotate.annotate` for what is done with labels that are there.
        target: where results go.
        settings: the thresholds.
        pins: what each model is (`Stages.pins`); other models are other settings.
        build: loads the models; called only if there is something to do.
        told: called after each batch with the number of pictures done and of all.
        engine: the cluster that looks at the pictures, which are sent there; None: this process. Records are written
            here in any case.

    Raises:
        SettingsError: the target holds something else, or was made with other settings.
        SceneError: no picture could be annotated.
        ModelError: the models cannot be loaded on the cluster.
    """
    format_of(target.folder, target.format)
    bring_back(target.folder, target.records / REPLACED)
    recipe = fingerprint(settings.facts(), {name: dict(pin) for name, pin in pins.items()})
    records = RunDirectory(target.records, KIND)
    known = records.items()  # at once: asking for each of thousands of pictures takes longer than all else
    _check(target, known, recipe)
    pictures = KnownPictures(target.records / KNOWN, dataset, recipe)
    outcome = Outcome()

    def batches() -> Iterator[_Batch]:
        for start in range(0, len(dataset), settings.batch_size):
            numbers = range(start, min(start + settings.batch_size, len(dataset)))
            entries = []
            for index in numbers:
                mark = pictures.mark(index)
                entry = _Entry(key_of(dataset, index), mark, None) if mark else _Entry.of(dataset, index, recipe)
                pictures.note(index, entry.mark)
                entries.append(entry)
            wanted = [not _is_done(records, known.get(entry.key), entry, target.retry) for entry in entries]
            if any(wanted):  # then all of them are
                entries = [
                    entry if entry.example or entry.fault else _Entry.of(dataset, index, recipe)
                    for index, entry in zip(numbers, entries, strict=True)
                ]
            yield _Batch(entries, wanted)

    work = _here(batches(), build, settings) if engine is None else _spread(batches(), build, settings, engine)
    for batch, results in work:
        for entry, wanted, found in zip(batch.entries, batch.wanted, results, strict=True):
            if wanted:
                _keep(records, entry, found, recipe)
        outcome.annotated += sum(batch.wanted)
        outcome.skipped += len(batch.entries) - sum(batch.wanted)
        if told is not None:
            told(outcome.annotated + outcome.skipped, len(dataset))
    records.settle()
    pictures.save()
    _write(dataset, target, records, outcome, {"settings": settings.facts(), "models": pins})
    return outcome


@dataclass(frozen=True, eq=False)
class _Entry:
    """An entry of the data set: what it is, or why it cannot be read; neither where nothing is to be done with it."""

    key: str
    mark: str
    example: Example | None
    fault: str = ""

    @classmethod
    def of(cls, dataset: SceneDataset, index: int, recipe: str) -> _Entry:
        key = key_of(dataset, index)
        try:
            example = dataset[index]
            return cls(key, fingerprint(recipe, content_of(example)), example)
        except (SceneError, OSError) as error:
            fault = one_line(str(error))
            return cls(key, fingerprint(recipe, fault), None, fault)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Neighbours that go through the models together, and which of them are wanted."""

    entries: Sequence[_Entry]
    wanted: Sequence[bool]

    def packed(self) -> tuple[list[_Entry], int]:
        """The entries with their pictures in them, for machines that do not see the files, and their bytes."""
        packed, size = [], 0
        for entry in self.entries:
            example = entry.example
            if example is not None and isinstance(example.image, Path):
                with suppress(OSError):  # gone meanwhile: then it cannot be read there, which is reported
                    example = replace(example, image=example.image.read_bytes())
            image = None if example is None else example.image
            size += image.nbytes if isinstance(image, np.ndarray) else len(image) if isinstance(image, bytes) else 0
            packed.append(replace(entry, example=example))
        return packed, size


_Worked = Iterator[tuple[_Batch, Sequence[Example | str]]]
_NOTHING = ""
"""Stands for the result of an entry of a batch of which nothing is wanted."""


def _here(batches: Iterator[_Batch], build: Callable[[], Stages], settings: AnnotationSettings) -> _Worked:
    """Work batches off in this process; the models are loaded for the first that needs them."""
    stages: Stages | None = None
    for batch in batches:
        if any(batch.wanted):
            stages = stages or build()
            yield batch, list(_annotated(batch.entries, stages, settings))
        else:
            yield batch, [_NOTHING] * len(batch.entries)


def _spread(
    batches: Iterator[_Batch], build: Callable[[], Stages], settings: AnnotationSettings, engine: RayOptions
) -> _Worked:
    """Work batches off on a cluster, in the order in which they are done; see `SENT_BYTES`."""
    window: list[tuple[_Batch, list[_Entry]]] = []
    held = 0
    for batch in batches:
        if not any(batch.wanted):
            yield batch, [_NOTHING] * len(batch.entries)
            continue
        packed, size = batch.packed()
        window.append((batch, packed))
        held += size
        if held >= SENT_BYTES:
            yield from _sent(window, build, settings, engine)
            window, held = [], 0
    yield from _sent(window, build, settings, engine)


def _sent(
    window: Sequence[tuple[_Batch, list[_Entry]]],
    build: Callable[[], Stages],
    settings: AnnotationSettings,
    engine: RayOptions,
) -> _Worked:
    packed = [entries for _, entries in window]
    for index, found in ray_map(build, partial(_annotated_there, settings), packed, engine):
        yield window[index][0], found


def _annotated_there(settings: AnnotationSettings, stages: Stages, entries: Sequence[_Entry]) -> list[Example | str]:
    """What comes back from a machine of the cluster: all but the pictures, which are here."""
    found = _annotated(entries, stages, settings)
    return [one if isinstance(one, str) else replace(one, image=None) for one in found]


def _is_done(records: RunDirectory, item: Item | None, entry: _Entry, retry: bool) -> bool:
    if item is None or item.fingerprint != entry.mark or (retry and "failed" in item.record):
        return False
    return records.is_whole(item)


def _annotated(entries: Sequence[_Entry], stages: Stages, settings: AnnotationSettings) -> Iterator[Example | str]:
    """An annotated example for each entry, or why there is none."""
    readable = [entry.example for entry in entries if entry.example is not None]
    try:
        whole: list[Example] | None = annotate(readable, stages, settings)
    except Exception:  # noqa: BLE001 - which picture it was, and what it says, comes out below
        whole = None
    done = iter(whole or ())
    for entry in entries:
        if entry.example is None:
            yield entry.fault
        elif whole is not None:
            yield next(done)
        else:
            yield _alone(entry.example, stages, settings)


def _alone(example: Example, stages: Stages, settings: AnnotationSettings) -> Example | str:
    try:
        return annotate([example], stages, settings)[0]
    except SceneError as error:
        return one_line(str(error))
    except Exception as error:  # noqa: BLE001 - whatever a model or a damaged picture raises, the others go on
        return one_line(f"{type(error).__name__}: {error}")


def _keep(records: RunDirectory, entry: _Entry, found: Example | str, recipe: str) -> None:
    record: dict[str, Any] = {"recipe": recipe}
    files: dict[str, bytes | str] = {}
    if isinstance(found, str):
        record["failed"] = found
    else:
        data: dict[str, Any] = {"scene": write_native(found.scene), "categories": list(found.categories)}
        data |= {"file_name": found.file_name, "image_id": found.image_id}
        data["visible"] = [mask and runs_of(mask) for mask in found.visible]
        files[f"{entry.key}.json"] = json.dumps(data, ensure_ascii=False, allow_nan=False)
    records.put(entry.key, entry.mark, files, record, replace=records.item(entry.key) is not None)


def _check(target: Target, known: Mapping[str, Item], recipe: str) -> None:
    """Refuse, before any work, what would be overwritten in silence."""
    folder = target.folder
    if target.overwrite:
        if folder.is_dir() and any(folder.iterdir()) and _manifest(folder) is None:
            raise SettingsError(f"{folder}: is no data set that was annotated here; choose another folder")
        return
    if any(item.record.get("recipe") != recipe for item in known.values()):
        message = f"{target.records}: was made with other settings or models"
        raise SettingsError(f"{message}; choose another folder, or replace it (--overwrite)")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    manifest = _manifest(folder)
    if manifest is None:
        raise SettingsError(f"{folder}: is there already and not empty; choose another folder")
    written = (folder / MANIFEST).stat().st_mtime_ns
    times = {path: os.stat(path).st_mtime_ns for path in files_in(folder)}
    changed = next((path for path, time in times.items() if time > written), None)
    if changed is None and len(times) < manifest.get("files", 0):
        changed = os.fspath(folder)  # something is gone
    if changed is not None:
        message = f"{changed}: was changed since the data set was written, which would undo that"
        raise SettingsError(f"{message}; choose another folder, or replace it (--overwrite)")


def _manifest(folder: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("kind") == KIND else None


def _write(
    dataset: SceneDataset, target: Target, records: RunDirectory, outcome: Outcome, facts: Mapping[str, Any]
) -> None:
    """Write the data set anew if anything in it changed, beside the old one, and put it in its place."""
    keys = [key_of(dataset, index) for index in range(len(dataset))]
    items = records.items()
    outcome.failed = {key: str(items[key].record["failed"]) for key in keys if "failed" in items[key].record}
    failed = [{"picture": key, "reason": reason} for key, reason in outcome.failed.items()]
    lines = [json.dumps(entry, ensure_ascii=False) for entry in failed]
    write_atomic(target.records / FAILED, "".join(f"{line}\n" for line in lines))
    done = [index for index, key in enumerate(keys) if key not in outcome.failed]
    entries = [(key, items[key]) for key in keys if key not in outcome.failed]
    marks = [fingerprint(key, item.fingerprint, item.files) for key, item in entries]
    mark = fingerprint(target.format, list(dataset.categories.items()), marks)
    manifest = _manifest(target.folder)
    if manifest is not None and manifest.get("mark") == mark and not target.overwrite:
        return
    if not done:
        first = next(iter(outcome.failed.items()), ("", ""))
        raise SettingsError(f"{target.folder}: no picture could be annotated; {first[0]}: {first[1]}")

    def read(report: Report, index: int) -> Example | None:
        return _read_record(report, records.local(f"{keys[index]}.json"), dataset[index])

    fresh = target.records / FRESH
    shutil.rmtree(fresh, ignore_errors=True)
    found = LazyDataset(os.fspath(target.records), done, read, dataset.categories)
    notes = Notes(target.records / NOTES, target.folder, marks)
    if target.overwrite:
        notes.file.unlink(missing_ok=True)
    outcome.written = write_dataset(found, fresh, target.format, notes)
    counts = {"pictures": outcome.written.pictures, "instances": outcome.written.instances}
    failed = [{"picture": key, "reason": reason} for key, reason in outcome.failed.items()]
    head = {"version": 1, "kind": KIND, "program": __version__, "format": target.format, "mark": mark, **counts}
    head["files"] = len(list(files_in(fresh))) + 1
    write_json(fresh / MANIFEST, {**head, **facts, "failed": failed})
    put_in_place(fresh, target.folder, target.records / REPLACED)


def _read_record(report: Report, path: Path, source: Example) -> Example | None:
    """A record as an example, with the picture it was made from."""
    data = json.loads(path.read_text(encoding="utf-8"))
    scene = read_native(data["scene"], report)
    if scene is None:
        return None
    canvas = Canvas(scene.width, scene.height)
    visible = tuple(read_visible(report, "$.visible", mask, canvas) for mask in data["visible"])
    return Example(scene, source.image, data["file_name"], data["image_id"], tuple(data["categories"]), visible)
