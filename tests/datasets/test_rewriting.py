"""A data set that is written again is the one written from nothing, whatever was changed, and reads only what was."""

import random
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest

from instancediffusion.datasets import FORMATS, DatasetFormat, Example, Notes, put_in_place, write_dataset
from instancediffusion.errors import Problem, SceneError
from instancediffusion.scene import Box, Instance, Mask, Point, Scene

CATEGORIES = {3: "dog", 1: "owl"}


class Rows:
    """A data set in memory that tells which entries were read."""

    def __init__(self, rows):
        self.rows, self.categories, self.read = rows, CATEGORIES, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.read.append(index)
        if self.rows[index] is None:
            raise SceneError([Problem("$", "is bad", "leave it out")], "rows")
        return self.rows[index]


def example(number):
    """Entries that differ in all that numbers and names of a data set depend on."""
    rng = np.random.default_rng(number)
    mask = np.zeros((20, 30), bool)
    mask[2:9, number % 7 : number % 7 + 9] = True
    instances = [Instance('a <red> & "wet" dog', box=Box(0.1, 0.2, 0.5, 0.9), z_order=1)]
    instances += [Instance(f"one {number}", mask=Mask.from_array(mask), z_order=0)][: number % 2]
    instances += [Instance("a place", point=Point(0.2, 0.3))][: number % 5 == 0]
    scene = Scene("two", tuple(instances[: 0 if number == 3 else None]), 30, 20)
    names = ("dog", f"kind {number % 4}", "place")[: len(scene.instances)]
    pixels = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    visible = tuple([Mask.from_array(mask)] * len(names)) if number % 3 == 0 else ()
    # Numbers and names that others have, too.
    return Example(scene, pixels, f"deep/a&{number // 3}.png", number // 2, names, visible)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.filterwarnings("ignore::instancediffusion.errors.SceneWarning")
def test_written_again_it_is_the_data_set_written_from_nothing(name, tmp_path):
    rng, folder = random.Random(name), tmp_path / "set"
    content = {number: example(number) for number in range(9)}
    version = {}

    def write(into, notes_file=None):
        rows = Rows([content[number] for number in sorted(content)])
        marks = [f"{number} {version.get(number, 0)}" for number in sorted(content)]
        notes = None if notes_file is None else Notes(notes_file, folder, marks)
        return rows, write_dataset(rows, into, name, notes)

    def again():
        rows, written = write(tmp_path / "new", tmp_path / "notes")
        put_in_place(tmp_path / "new", folder, tmp_path / "old")
        _, expected = write(tmp_path / "fresh")
        assert (written, files(folder)) == (expected, files(tmp_path / "fresh"))
        shutil.rmtree(tmp_path / "fresh")
        return [sorted(content)[index] for index in rows.read]

    incremental = FORMATS[name].describe is not None
    assert again() == list(range(9))
    content[20] = example(20)
    assert again() == ([20] if incremental else sorted(content))
    for step in range(12):
        number = rng.choice(sorted(content))
        match step % 6:
            case 0:  # one that comes before others and shifts their numbers
                content[number - 0.5], version[number - 0.5] = example(30 + step), step
            case 1:
                del content[number]
            case 2:  # other pixels, or another entry, under the same name
                content[number] = replace(example(40 + step), file_name="deep/a&1.png")
                version[number] = step
            case 3:
                content[number], version[number] = None, step
            case 4:  # a picture of the old data set that is not as it was written
                picture = rng.choice(sorted(path for path in folder.rglob("*.png")) or [tmp_path / "none"])
                picture.write_bytes(b"somebody's") if step % 4 else picture.unlink(missing_ok=True)
            case 5:
                notes = (tmp_path / "notes").read_text() if incremental else ""
                (tmp_path / "notes").write_text(notes[: len(notes) // 2] + rng.choice(["", "\n1\t{", "\x00"]))
        again()
    unread = {number for number in content if content[number] is not None}
    assert not incremental or not unread & set(again())


def test_a_format_of_ones_own_is_written_as_a_whole(tmp_path):
    def write(entries, folder, categories):
        for entry in entries:
            entry.save(folder / "pictures")
            assert entry.content.file_name == entry.file_name and entry.content.image == entry.image

    FORMATS["mine"] = DatasetFormat("mine", "mine", frozenset({"box"}), lambda _: False, lambda *_: None, write)
    try:
        rows = Rows([example(2), example(4)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for folder in ("one", "two"):
                write_dataset(rows, tmp_path / folder, "mine", Notes(tmp_path / "notes", tmp_path / "one", ["2", "4"]))
        assert rows.read == [0, 1] * 2 and files(tmp_path / "one") == files(tmp_path / "two")
        assert len(files(tmp_path / "two")) == 2 and not (tmp_path / "notes").exists()
    finally:
        FORMATS.pop("mine")


@pytest.mark.parametrize("there", [False, True])
def test_a_writer_that_is_stopped_leaves_nothing_that_looks_like_a_data_set(there, tmp_path):
    folder = tmp_path / "set"
    if there:
        folder.mkdir()

    class Stopped(Rows):
        def __getitem__(self, index):
            if index == 2:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        write_dataset(Stopped([example(number) for number in range(4)]), folder, "labelme")
    assert [path for path in tmp_path.rglob("*") if path != folder] == [] and folder.exists() == there
    # Killed, so that it could not clear up.
    partial = folder / ".partial" if there else tmp_path / ".set.partial"
    partial.mkdir()
    (partial / "old.png").write_bytes(b"half")
    write_dataset(Rows([example(number) for number in range(4)]), folder, "labelme")
    assert len(files(folder)) == 8 and not partial.exists() and "old.png" not in files(folder)
