"""Run directories: whole files, exact resuming, and no silent overwriting, also when the process is killed."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instancediffusion import runs
from instancediffusion.runs import ItemState, ManifestError, RunConflictError, RunDirectory

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_a_finished_item_is_complete_only_under_its_own_fingerprint(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", "generate")
    assert run.state("a", "f1") is ItemState.MISSING
    run.put("a", "f1", {"a.png": b"picture", "a.json": "{}"}, {"seed": 3})

    again = RunDirectory(tmp_path / "run", "generate")
    assert again.is_complete("a", "f1")
    assert again.state("a", "f2") is ItemState.DIFFERENT
    assert again.items()["a"].record == {"seed": 3}
    assert again.items()["a"].files["a.png"]["sha256"] == runs.file_sha256(tmp_path / "run" / "a.png")


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"pict")])
def test_a_lost_or_cut_file_is_computed_again(tmp_path: Path, harm) -> None:
    run = RunDirectory(tmp_path, "generate")
    run.put("a", "f1", {"a.png": b"picture"})
    harm(tmp_path / "a.png")
    assert run.state("a", "f1") is ItemState.DAMAGED
    run.put("a", "f1", {"a.png": b"picture"})
    assert run.is_complete("a", "f1")


def test_other_settings_never_overwrite_in_silence(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, "generate")
    run.put("a", "f1", {"a.png": b"old"})
    with pytest.raises(RunConflictError, match="made with other settings"):
        run.put("a", "f2", {"a.png": b"new"})
    with pytest.raises(RunConflictError, match="made by 'a'"):
        run.put("b", "f3", {"a.png": b"new"})
    assert (tmp_path / "a.png").read_bytes() == b"old"
    run.put("a", "f2", {"a.png": b"new"}, replace=True)
    assert (tmp_path / "a.png").read_bytes() == b"new"
    assert run.is_complete("a", "f2")


def test_a_file_of_the_users_own_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"holiday")
    run = RunDirectory(tmp_path, "generate")
    with pytest.raises(RunConflictError, match="no run we know of"):
        run.check("a", "f1", ["a.png"])
    with pytest.raises(RunConflictError):
        run.put("a", "f1", {"a.png": b"new"})
    assert (tmp_path / "a.png").read_bytes() == b"holiday"
    assert not (tmp_path / runs.MANIFEST).exists()


@pytest.mark.parametrize("name", ["../a.png", "/tmp/a.png", "", runs.MANIFEST, runs.DATABASE, "b/../../a.png"])
def test_files_stay_inside_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a file name inside"):
        RunDirectory(tmp_path / "run", "generate").put("a", "f", {name: b""})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"version": 1}', "damaged"),
        ('{"version": 99, "kind": "generate"}', "newer version"),
        ('{"version": 1, "kind": "train"}', "belongs to a 'train' run"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / runs.MANIFEST).write_text(text)
    with pytest.raises(ManifestError, match=says):
        RunDirectory(tmp_path, "generate")


def test_a_failing_writer_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    runs.write_atomic(path, b"old")
    with pytest.raises(RuntimeError), runs.atomic_path(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_result_is_as_readable_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    runs.write_atomic(tmp_path / "atomic", b"")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_numbers_that_json_cannot_say_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        runs.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@given(st.dictionaries(st.text(), JSON, min_size=2), JSON)
def test_fingerprint_depends_on_values_and_not_on_the_order_of_keys(value: dict, other) -> None:
    backwards = dict(reversed(value.items()))
    assert runs.fingerprint(value, other) == runs.fingerprint(backwards, other)
    assert runs.fingerprint(value, other) == runs.fingerprint(json.loads(json.dumps(value)), other)
    assert runs.fingerprint(value) != runs.fingerprint(value, other)


def test_the_cache_is_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INSTANCEDIFFUSION_CACHE", str(tmp_path))
    assert runs.cache_folder() == tmp_path
    assert runs.cache_folder("elsewhere") == Path("elsewhere")
    monkeypatch.delenv("INSTANCEDIFFUSION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform != "win32":
        assert runs.cache_folder() == tmp_path / "instancediffusion"


WORKER = """
import sys
from instancediffusion.runs import RunDirectory, fingerprint
run = RunDirectory(sys.argv[1], "generate")
print("ready", flush=True)
for index in range(40):
    key, mark = f"item{index:02d}", fingerprint(index)
    if run.is_complete(key, mark):
        continue
    content = bytes([index]) * 300_000
    run.put(key, mark, {f"{key}.png": content, f"{key}.json": content.hex()[:100]})
print("done", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_at_any_moment_it_leaves_whole_files_and_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chance = random.Random(7)
    kills = 0
    for _ in range(60):
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if kills < 6:
                time.sleep(chance.uniform(0.0, 0.03))
                process.send_signal(signal.SIGKILL)
            ended = process.stdout.read() == "done\n"
        for path in folder.glob("item*"):
            index = int(path.stem[4:])
            content = bytes([index]) * 300_000
            assert path.read_bytes() == (content if path.suffix == ".png" else content.hex()[:100].encode())
        finished = RunDirectory(folder, "generate")
        assert all(finished.is_complete(key, runs.fingerprint(int(key[4:]))) for key in finished.items())
        if ended:
            break
        kills += 1
    assert kills == 6
    assert not list(folder.glob(".*")), "a killed writer's temporary files are swept by the next"
    assert len(RunDirectory(folder, "generate").items()) == 40


def old_manifest(folder: Path, count: int) -> None:
    """Write a folder as earlier versions did: one JSON file that holds every item."""
    items = {}
    for index in range(count):
        (folder / f"old{index}.png").write_bytes(b"old")
        files = {f"old{index}.png": {"sha256": "0" * 64, "bytes": 3}}
        items[f"old{index}"] = {"fingerprint": f"f{index}", "files": files, "record": {"seed": index}, "finished": "t"}
    manifest = {"version": 1, "kind": "generate", "items": items, "pending": {"begun": ["begun.png"]}}
    (folder / "begun.png").write_bytes(b"half of")
    (folder / runs.MANIFEST).write_text(json.dumps(manifest))


def test_a_folder_of_an_earlier_version_is_read_and_continued(tmp_path: Path) -> None:
    old_manifest(tmp_path, 3)
    before = (tmp_path / runs.MANIFEST).read_bytes()
    run = RunDirectory(tmp_path, "generate")
    assert run.is_complete("old2", "f2") and run.items()["old1"].record == {"seed": 1}
    run.check("begun", "f", ["begun.png"])  # announced by the run that was killed
    assert (tmp_path / runs.MANIFEST).read_bytes() == before and not (tmp_path / runs.DATABASE).exists()
    with pytest.raises(RunConflictError):
        run.put("old1", "other", {"old1.png": b"new"})
    run.put("begun", "f", {"begun.png": b"whole"})
    kept = json.loads((tmp_path / runs.MANIFEST).read_text())
    assert list(kept["items"]) == ["old0", "old1", "old2", "begun"] and kept["pending"] == {}
    assert list(RunDirectory(tmp_path, "generate").items()) == ["old0", "old1", "old2", "begun"]


def test_an_item_more_does_not_rewrite_what_a_large_folder_holds(tmp_path: Path) -> None:
    """Eight pictures into a folder of 4,000 once took four times as long as into an empty one."""
    old_manifest(tmp_path, 200)
    run = RunDirectory(tmp_path, "generate")
    run.put("a0", "f", {"a0.png": b"new"})
    before = (tmp_path / runs.MANIFEST).stat().st_mtime_ns
    for index in range(1, 8):
        run.put(f"a{index}", "f", {f"a{index}.png": b"new"})
    assert (tmp_path / runs.MANIFEST).stat().st_mtime_ns == before
    assert len(run.items()) == 208
    run.settle()
    assert len(json.loads((tmp_path / runs.MANIFEST).read_text())["items"]) == 208


def test_the_manifest_is_whole_when_the_run_is_let_go(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, "generate")
    for index in range(40):
        run.put(f"item {index}", str(index), {f"{index}.png": b"x"}, {"text": 'quote " and 犬'})
    del run
    manifest = json.loads((tmp_path / runs.MANIFEST).read_text(encoding="utf-8"))
    assert [item["fingerprint"] for item in manifest["items"].values()] == [str(index) for index in range(40)]
    assert manifest["items"]["item 7"]["record"] == {"text": 'quote " and 犬'}
    assert (manifest["version"], manifest["kind"]) == (1, "generate")


def test_what_a_killed_run_did_not_live_to_tell_is_told_by_the_next(tmp_path: Path) -> None:
    program = """
import os, sys
from instancediffusion.runs import RunDirectory
run = RunDirectory(sys.argv[1], "generate")
for index in range(27):
    run.put(f"item{index}", "f", {f"item{index}.png": b"x"})
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    assert len(json.loads((tmp_path / runs.MANIFEST).read_text())["items"]) < 27
    run = RunDirectory(tmp_path, "generate")
    assert len(run.items()) == 27
    run.settle()
    assert len(json.loads((tmp_path / runs.MANIFEST).read_text())["items"]) == 27
    before = (tmp_path / runs.MANIFEST).stat().st_mtime_ns
    run.settle()
    assert (tmp_path / runs.MANIFEST).stat().st_mtime_ns == before


def test_a_damaged_view_is_derived_anew(tmp_path: Path) -> None:
    RunDirectory(tmp_path, "generate").put("a", "f", {"a.png": b"x"})
    (tmp_path / runs.MANIFEST).write_text("{")
    RunDirectory(tmp_path, "generate").put("b", "f", {"b.png": b"x"})
    assert list(json.loads((tmp_path / runs.MANIFEST).read_text())["items"]) == ["a", "b"]
    with pytest.raises(ManifestError, match="belongs to a 'generate' run"):
        RunDirectory(tmp_path, "train")


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    """Of 80 items by two writers, 39 were once in the manifest, and one writer swept away the other's files."""
    program = """
import sys
from instancediffusion.runs import RunDirectory
run = RunDirectory(sys.argv[1], "generate")
for index in range(40):
    run.put(f"{sys.argv[2]}{index}", "f", {f"{sys.argv[2]}{index}.png": b"x" * 1000})
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    wanted = {f"{name}{index}" for name in "abc" for index in range(40)}
    assert set(RunDirectory(tmp_path, "generate").items()) == wanted
    assert set(json.loads((tmp_path / runs.MANIFEST).read_text())["items"]) == wanted
    assert {path.stem for path in tmp_path.glob("*.png")} == wanted
    assert not list(tmp_path.glob(".*"))
