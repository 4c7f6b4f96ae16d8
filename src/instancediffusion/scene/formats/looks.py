"""What an instance is to look like beside its caption: the same keys in every format that is written here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instancediffusion.errors import SceneError

from ..beside import file_bytes
from ..checks import check_text
from ..limits import MAX_REFERENCE_BYTES
from ..model import Instance
from ..problem_report import Report, child
from ..reference import REFERENCE_URIS, Reference

LOOKS = ("negative", "reference")


def read_looks(report: Report, path: str, data: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Read the two keys as fields of an `Instance`; `folder` is where files named in the scene lie."""
    looks: dict[str, Any] = {}
    if "negative" in data:
        where = child(path, "negative")
        looks["negative"] = check_text(report, where, data["negative"], what="negative caption", blank=True)
    if "reference" in data:
        looks["reference"] = _read_reference(report, child(path, "reference"), data["reference"], folder)
    return looks


def write_looks(instance: Instance) -> dict[str, str]:
    """The keys of an instance that has them; a picture is written as text."""
    looks = {} if instance.negative is None else {"negative": instance.negative}
    return looks if instance.reference is None else looks | {"reference": instance.reference.data_uri}


def _read_reference(report: Report, path: str, value: object, folder: Path | None) -> Reference | None:
    source = check_text(report, path, value, what="file name")
    if source is None:
        return None
    content = file_bytes(report, path, source, folder, "picture", REFERENCE_URIS, MAX_REFERENCE_BYTES)
    if content is None:
        return None
    try:
        return Reference(content)
    except SceneError as error:
        for problem in error.problems:
            report.error(path, problem.message, problem.fix)
        return None
