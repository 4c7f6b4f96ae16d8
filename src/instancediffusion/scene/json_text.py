"""JSON text: reading that trusts nothing, and writing that people can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .problem_report import Report, child, show


class _Repeated(dict[str, Any]):
    """A JSON object that gave some keys twice."""

    keys_twice: tuple[str, ...] = ()


def parse(report: Report, content: bytes) -> Any:
    """Return the data of a JSON text, or None with a note of why it is none. Objects with a key twice are noted.

    NaN and Infinity, which JSON does not know but Python reads, come as floats: they are refused where they stand.
    """
    repeated = False

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        data = dict(pairs)
        if len(data) == len(pairs):
            return data
        repeated = True
        seen: set[str] = set()
        marked = _Repeated(data)
        marked.keys_twice = tuple({key: None for key, _ in pairs if key in seen or seen.add(key)})  # type: ignore[func-returns-value]
        return marked

    try:
        data = json.loads(content.decode("utf-8-sig"), object_pairs_hook=build)
    except UnicodeDecodeError as error:
        report.error("$", f"is not UTF-8 text (byte {error.start})", "save the file as UTF-8")
        return None
    except json.JSONDecodeError as error:
        report.error("$", f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})", "mend it there")
        return None
    except RecursionError:
        report.error("$", "is nested too deeply", "a scene needs five levels")
        return None
    except ValueError:
        report.error("$", "holds a number with thousands of digits", "write lengths in pixels")
        return None
    if repeated:
        _note_repeated(report, data)
    return data


def _note_repeated(report: Report, data: Any) -> None:
    stack: list[tuple[str, Any]] = [("$", data)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, _Repeated):
            for key in value.keys_twice:
                report.error(child(path, key), "is given twice", f"keep one {show(key)}".replace("'", '"'))
        if isinstance(value, dict):
            stack.extend((child(path, key), item) for key, item in reversed(value.items()))
        elif isinstance(value, list):
            stack.extend((child(path, index), value[index]) for index in range(len(value) - 1, -1, -1))


def write(data: Mapping[str, Any], *, per_line: str) -> str:
    """Return JSON text with one line for each member, and one for each item of the member `per_line`."""
    lines = []
    for key, value in data.items():
        if key == per_line and value:
            items = ",\n".join(f"  {_compact(item)}" for item in value)
            lines.append(f" {_compact(key)}: [\n{items}\n ]")
        else:
            lines.append(f" {_compact(key)}: {_compact(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
