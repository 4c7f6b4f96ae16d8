"""Checks of single values. Each notes what is wrong in a `Report` and returns the clean value, or None."""

import math
import numbers
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeGuard

from .limits import MAX_LENGTH_PX
from .problem_report import Report, child, kind, nearest, show


def check_number(report: Report, path: str, value: object) -> float | None:
    """Return a finite number as float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        fix = "write it without quotes" if isinstance(value, str) and _reads_as_number(value) else "write a number"
        report.error(path, f"is {_described(value)}, not a number", fix)
        return None
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        report.error(path, f"is {'not a number (NaN)' if math.isnan(number) else 'infinite'}", "write a finite number")
        return None
    return number


def check_integer(report: Report, path: str, value: object, low: int, high: int) -> int | None:
    """Return a whole number in `low..high`; 3.0 counts as 3, as it does in JSON Schema."""
    wanted = f"write a whole number in {low}..{high}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        report.error(path, f"is {_described(value)}, not an integer", wanted)
        return None
    number = check_number(report, path, value)
    if number is None:
        return None
    if number != math.floor(number):
        report.error(path, f"is {show(value)}, not an integer", wanted)
        return None
    if not low <= number <= high:
        report.error(path, f"is {show(value)}, outside {low}..{high}", wanted)
        return None
    return int(value)  # type: ignore[call-overload,no-any-return]


def check_text(report: Report, path: str, value: object, *, what: str, blank: bool = False) -> str | None:
    """Return a string that can be written as UTF-8; `blank` allows one with nothing to read in it."""
    if not isinstance(value, str):
        report.error(path, f"is {_described(value)}, not a string", f"write the {what} in double quotes")
        return None
    if not value.strip() and not blank:
        report.error(path, f"is an empty {what}", "say in words what is to be seen")
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        report.error(path, "holds half of a surrogate pair, which is no character", "write the character itself")
        return None
    return value


def check_pair(report: Report, path: str, value: object) -> tuple[float, float] | None:
    """Return two finite numbers (x, y)."""
    found = check_numbers(report, path, value, 2, "[x, y]")
    return None if found is None else (found[0], found[1])


def check_numbers(report: Report, path: str, value: object, length: int, form: str) -> list[float] | None:
    """Return `length` finite numbers; `form` shows how they are written."""
    if not is_array(value):
        report.error(path, f"is {_described(value)}, not an array", f"write {form}")
        return None
    if len(value) != length:
        report.error(path, f"has {len(value)} items, not {length}", f"write {form}")
        return None
    found = [check_number(report, child(path, index), item) for index, item in enumerate(value)]
    for index, number in enumerate(found):
        if number is not None and abs(number) > MAX_LENGTH_PX:
            report.error(child(path, index), f"is {show(number)}, far off any canvas", "lengths are pixels")
            found[index] = None
    return None if any(number is None for number in found) else [number for number in found if number is not None]


def check_object(report: Report, path: str, value: object) -> Mapping[str, object] | None:
    """Return a JSON object whose keys are strings."""
    if not isinstance(value, Mapping):
        report.error(path, f"is {_described(value)}, not an object", "write {...}")
        return None
    strange = [key for key in value if not isinstance(key, str)]
    if strange:
        report.error(path, f"has the key {show(strange[0])}, not a string", "use strings as keys")
        return None
    return value


def check_keys(
    report: Report,
    path: str,
    value: Mapping[str, object],
    known: Collection[str],
    required: Collection[str] = (),
    hints: Mapping[str, str] | None = None,
) -> None:
    """Note keys that are unknown (with the nearest known one, or a hint) or missing."""
    for key in value:
        if key in known:
            continue
        hint, near = (hints or {}).get(key), nearest(key, known)
        fix = hint or (f"did you mean {show(near)}?" if near else f"known keys are {', '.join(known)}")
        message = "is not a known key" if not report.lenient else "is not a known key and is not read"
        (report.warn if report.lenient else report.error)(child(path, key), message, fix)
    for key in required:
        if key not in value:
            report.error(child(path, key), "is missing", f"add {show(key)}".replace("'", '"'))


def is_array(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether a value counts as a JSON array."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _reads_as_number(text: str) -> bool:
    try:
        return len(text) < 40 and math.isfinite(float(text))
    except ValueError:
        return False


def _described(value: object) -> str:
    return kind(value) if isinstance(value, dict | list | tuple) or value is None else show(value)
