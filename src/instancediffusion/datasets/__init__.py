"""Labelled pictures in and out: one type and the formats that hold it. No torch."""

from . import formats as _formats  # noqa: F401 - registers them
from .dataset_format import (
    FORMATS,
    DatasetFormat,
    ReadingOptions,
    Written,
    format_of,
    open_dataset,
    register,
    write_dataset,
)
from .dataset_notes import Entry, Notes, bring_back, files_in, put_in_place
from .example import Example, LazyDataset, SceneDataset, Subset, usable
from .holding import EVERYTHING, FEATURES

__all__ = [
    "EVERYTHING",
    "FEATURES",
    "FORMATS",
    "DatasetFormat",
    "Entry",
    "Example",
    "LazyDataset",
    "Notes",
    "ReadingOptions",
    "SceneDataset",
    "Subset",
    "Written",
    "bring_back",
    "files_in",
    "format_of",
    "open_dataset",
    "put_in_place",
    "register",
    "usable",
    "write_dataset",
]
