"""The formats of data sets, by name: each one object that reads and writes. `register` adds another."""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from instancediffusion.errors import Problem, SceneError, SceneWarning, SettingsError

from .dataset_notes import Entry, Line, Notes
from .example import Example, SceneDataset
from .file_access import MAX_ENTRIES, Names
from .holding import EVERYTHING, held


@dataclass(frozen=True)
class ReadingOptions:
    """What a data set does not say by itself.

    Attributes:
        images: the folder of the pictures, where they are not found beside the annotations.
        captions: the captions file that goes with a COCO instances file.
        labels: class names of YOLO files, in their order.
        split: the part of the data set to read (`train`, `val`, ...), where it has parts; None reads all of them.
    """

    images: Path | None = None
    captions: Path | None = None
    labels: Sequence[str] | None = None
    split: str | None = None


_PARTIAL = ".partial"

Writer = Callable[[Iterator[Entry], Path, Mapping[int | str, str]], None]


@dataclass(frozen=True)
class DatasetFormat:
    """How a format is read and written.

    Attributes:
        name: what it is called in recipes and on the command line.
        title: what it is called in messages.
        holds: the keys of `holding.FEATURES` that it can state; the rest is lost on writing, which is warned of.
        recognise: whether a path looks like one.
        read: opens it; nothing but the annotations' index need be read before entries are asked for.
        write: takes entries one by one, and the categories (id -> name); into an empty folder. It calls `save` of each
            entry, or takes its `image`, before it asks for the next but one.
        adjust: what else is lost, counted; for what `holds` has no word for.
        describe: makes the `content` of an entry of an example that holds nothing the format cannot: JSON-like values
            that depend on nothing else, which are kept for when the data set is written again. Without it, the content
            is the example, and all is read and written each time.
    """

    name: str
    title: str
    holds: frozenset[str]
    recognise: Callable[[Path], bool]
    read: Callable[[Path, ReadingOptions], SceneDataset]
    write: Writer
    adjust: Callable[[Example, Counter[str]], Example | None] = lambda example, _: example
    describe: Callable[[Example], Any] | None = None

    def hold(self, example: Example, lost: Counter[str]) -> Example | None:
        """The example as it comes back from this format, or None if nothing of it does; counts what is lost."""
        kept = held(example, self.holds, lost)
        return None if kept is None else self.adjust(kept, lost)


FORMATS: dict[str, DatasetFormat] = {}
"""The formats by name, in the order in which a path is tried."""


def register(format: DatasetFormat) -> DatasetFormat:
    """Add a format of your own, or replace one; it is then known to every command and recipe.

    Raises:
        ValueError: it holds something that is none of `holding.FEATURES`.
    """
    if unknown := sorted(format.holds - EVERYTHING):
        raise ValueError(f"{format.name}: holds {unknown}; known are {', '.join(sorted(EVERYTHING))}")
    FORMATS[format.name] = format
    return format


def format_of(path: str | os.PathLike[str], name: str | None = None) -> DatasetFormat:
    """The format of a path, by its content, or the one of that name.

    Raises:
        SettingsError: it is none that is known, or the name is not.
    """
    if name is not None:
        if name not in FORMATS:
            raise SettingsError(f"format = {name!r}: known formats are {', '.join(FORMATS)}")
        return FORMATS[name]
    where = Path(path)
    if not where.exists():
        raise SettingsError(f"{where}: there is no such file or folder")
    found = next((known for known in FORMATS.values() if known.recognise(where)), None)
    if found is None:
        raise SettingsError(f"{where}: looks like no data set that is read: {', '.join(FORMATS)}; name its format")
    return found


def open_dataset(
    path: str | os.PathLike[str], format: str | None = None, options: ReadingOptions | None = None
) -> SceneDataset:
    """Open labelled pictures of any known format; entries are read when they are asked for.

    Args:
        path: a file or folder.
        format: its name; found out from the content if None.
        options: what the data set does not say by itself.

    Raises:
        SettingsError: the format is not known.
        SceneError: the data set cannot be read at all.
        OSError: a file cannot be opened.
    """
    where, options = Path(path), options or ReadingOptions()
    dataset = format_of(where, format).read(where, options)
    if len(dataset) > MAX_ENTRIES:
        problem = Problem("$", f"has {len(dataset)} entries", f"read at most {MAX_ENTRIES}; split it")
        raise SceneError([problem], os.fspath(path))
    if not len(dataset):
        part = f" in the part {options.split!r}" if options.split is not None else ""
        raise SceneError([Problem("$", f"holds no labelled picture{part}", "see docs/datasets.md")], os.fspath(path))
    return dataset


@dataclass
class Written:
    """What became of writing.

    Attributes:
        pictures: how many were written.
        instances: of all pictures.
        skipped: entries that could not be read, or of which the format holds nothing.
        lost: what the format could not hold -> how often.
    """

    pictures: int = 0
    instances: int = 0
    skipped: int = 0
    lost: Counter[str] = field(default_factory=Counter)


def write_dataset(
    dataset: SceneDataset, folder: str | os.PathLike[str], format: str, notes: Notes | None = None
) -> Written:
    """Write labelled pictures with their pictures, in the order of the data set; all of them or nothing.

    Names of files are kept as far as they are safe and differ; numbers and names of categories are kept. What cannot
    be used is left out with a warning; what the format cannot hold is listed in one `SceneWarning`.

    Args:
        dataset: what is written.
        folder: a new or empty one.
        format: the name of a format.
        notes: of the data set that this one replaces: entries that have not changed are taken from it.

    Raises:
        SettingsError: the folder is there and not empty, or the format is not known.
        SceneError: no entry can be written.
    """
    target, kind, count = Path(folder), format_of(folder, format), Written()
    if target.exists() and (not target.is_dir() or any(path.name != _PARTIAL for path in target.iterdir())):
        raise SettingsError(f"{target}: is there already and not empty; choose another folder")
    partial = target / _PARTIAL if target.exists() else target.with_name(f".{target.name}{_PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was stopped
    partial.mkdir(parents=True)

    noting = notes is not None and kind.describe is not None
    try:
        with notes.writing(kind.name, partial) if notes is not None and noting else nullcontext(_unnoted) as note:
            entries = _entries(dataset, kind, count, notes if noting else None, note)
            kind.write(entries, partial, dict(dataset.categories))
        if count.pictures and not target.exists():
            partial.rename(target)
        elif count.pictures:
            for path in sorted(partial.iterdir(), key=lambda path: path.is_file()):  # lists of pictures after these
                path.rename(target / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if count.lost:
        lost = ", ".join(f"{what} ({number})" for what, number in count.lost.items())
        warnings.warn(f"{target}: {kind.title} cannot hold {lost}", SceneWarning, stacklevel=2)
    if not count.pictures:
        raise SceneError([Problem("$", "no entry could be written", "the warnings say why")], os.fspath(folder))
    return count


def _unnoted(index: int, line: Line, entry: Entry | None) -> None:
    """Nobody wants to know."""


def _entries(
    dataset: SceneDataset,
    kind: DatasetFormat,
    count: Written,
    notes: Notes | None,
    note: Callable[[int, Line, Entry | None], None],
) -> Iterator[Entry]:
    names = Names()
    known = {} if notes is None else notes.read(kind.name)
    for index in range(len(dataset)):
        line, image = None if notes is None else notes.find(known, index), None
        if line is None:
            try:
                line, image = _line(dataset[index], kind)
            except SceneError as error:
                warnings.warn(f"{error}: left out", SceneWarning, stacklevel=4)
                count.skipped += 1
                continue
        count.lost.update(line.lost)
        if line.content is None:
            count.skipped += 1
            note(index, line, None)
            continue
        count.pictures += 1
        count.instances += line.instances
        name = names.free(line.own_name, line.suffix, f"{index:08d}")
        kept = notes.folder / line.path if notes is not None and image is None else None
        content = replace(line.content, image=image, file_name=name) if kind.describe is None else line.content
        entry = Entry(name, line.image_id, content, image, kept)
        yield entry
        note(index, line, entry)


def _line(example: Example, kind: DatasetFormat) -> tuple[Line, bytes]:
    """What is written of an example, and its picture."""
    if example.image is None:
        raise SceneError([Problem("$", "has no picture", "name the folder of the pictures")], example.file_name)
    lost = Counter[str]()
    data, suffix = example.encoded()
    kept = kind.hold(example, lost)
    if kept is None:
        return Line(None, lost=dict(lost)), data
    content = kept if kind.describe is None else kind.describe(kept)
    return Line(content, kept.file_name, suffix, kept.image_id, len(kept.scene.instances), dict(lost)), data
