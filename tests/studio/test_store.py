"""Results and drafts on disk: found again, and nothing else."""

import io
import json
import zipfile
from datetime import datetime, timezone

import pytest

from instancediffusion.runs import DATABASE, RunDirectory
from instancediffusion.studio.bounds import RefusedError
from instancediffusion.studio.drafts import DraftStore
from instancediffusion.studio.store import RunStore
from tests.tiny_pipeline import scene_of

SESSION = "a-session-of-a-browser"
STRANGE = [
    "", ".", "..", "../..", "/etc", "/etc/passwd", "runs", "20261124-000000-zzzzzz", "20261124-000000-abcdef/../..",
    "20261124-000000-abcdef\0", "20261124-000000-ABCDEF", "%2e%2e", "a" * 5000, "..\\..", None, 3, ["x"],
]  # fmt: skip


def put(store: RunStore, seed: int = 0) -> str:
    run = store.new()
    folder = RunDirectory(store.path(run), "generate")
    record = {"scene": scene_of(2).to_dict(), "seed": seed, "size": [64, 64], "settings": {}, "asked_for": "tiny"}
    folder.put(f"scene_{seed}", "f" * 64, {f"scene_{seed}.png": b"png"}, record)
    return run


def test_what_is_made_is_listed_newest_first_also_by_another_store(tmp_path):
    times = iter(datetime(2026, 1, 1, hour, tzinfo=timezone.utc) for hour in range(9))
    store = RunStore(tmp_path, clock=lambda: next(times))
    runs = [put(store, seed) for seed in range(5)]
    for found in (store, RunStore(tmp_path)):
        assert [summary["id"] for summary in found.listing(10)] == runs[::-1]
        assert [summary["id"] for summary in found.listing(2)] == runs[:2:-1]
        assert [summary["id"] for summary in found.listing(10, before=runs[2])] == [runs[1], runs[0]]
    assert store.listing(1)[0]["pictures"][0]["seed"] == 4
    assert store.details(runs[0])["prompt"] == scene_of(2).prompt


def test_runs_of_the_same_second_have_different_names(tmp_path):
    store = RunStore(tmp_path, clock=lambda: datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert len({store.new() for _ in range(50)}) == 50


def test_a_listing_sees_what_was_added_to_a_run(tmp_path):
    store = RunStore(tmp_path)
    run = put(store)
    assert len(store.listing(1)[0]["pictures"]) == 1
    record = {"scene": scene_of(1).to_dict(), "seed": 9, "size": [64, 64]}
    RunDirectory(store.path(run), "generate").put("scene_9", "e" * 64, {"scene_9.png": b"more"}, record)
    assert len(store.listing(1)[0]["pictures"]) == 2


@pytest.mark.parametrize("run", STRANGE, ids=lambda run: repr(run)[:20])
def test_strange_ids_name_nothing(tmp_path, run):
    store = RunStore(tmp_path)
    put(store)
    with pytest.raises(RefusedError):
        store.path(run)


@pytest.mark.parametrize(
    "name", [*STRANGE, "manifest.json/..", ".hidden", "other.png", "../manifest.json"], ids=lambda n: repr(n)[:20]
)
def test_only_files_of_the_manifest_are_given_out(tmp_path, name):
    store = RunStore(tmp_path)
    run = put(store)
    (store.path(run) / "other.png").write_bytes(b"not of the run")
    assert store.file(run, "scene_0.png").read_bytes() == b"png"
    assert json.loads(store.file(run, "manifest.json").read_text())["kind"] == "generate"
    with pytest.raises(RefusedError):
        store.file(run, name)


def test_links_are_not_followed(tmp_path):
    store = RunStore(tmp_path / "root")
    run = put(store)
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"png")
    path = store.path(run) / "scene_0.png"
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(RefusedError):
        store.file(run, "scene_0.png")
    linked = store.folder / "20250101-000000-abcdef"
    linked.symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(RefusedError):
        store.path(linked.name)
    assert linked.name not in store.ids()


def test_damaged_manifests_are_left_out_of_the_list(tmp_path):
    store = RunStore(tmp_path)
    good, bad = put(store), put(store)
    (store.path(bad) / DATABASE).write_text("no database" * 100)
    assert [summary["id"] for summary in store.listing(10)] == [good]
    with pytest.raises(RefusedError, match="manifest"):
        store.details(bad)


def test_an_archive_holds_the_files_of_the_run(tmp_path):
    store = RunStore(tmp_path)
    run = put(store)
    with zipfile.ZipFile(io.BytesIO(store.zipped(run))) as archive:
        assert set(archive.namelist()) == {f"{run}/manifest.json", f"{run}/scene_0.png"}
        assert archive.read(f"{run}/scene_0.png") == b"png"


def test_drafts_come_back_to_their_session_alone(tmp_path):
    drafts = DraftStore(tmp_path, 1000, 10)
    drafts.save(SESSION, '{"a": 1}')
    assert DraftStore(tmp_path, 1000, 10).load(SESSION) == '{"a": 1}'
    assert drafts.load(SESSION + "x") is None
    drafts.save(SESSION, '{"a": 2}')
    assert drafts.load(SESSION) == '{"a": 2}'
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("session", ["", "short", "../../../../etc/passwd", "a" * 81, "with space-------", None, 3])
def test_a_session_has_a_plain_name(tmp_path, session):
    with pytest.raises(RefusedError, match="session"):
        DraftStore(tmp_path, 1000, 10).save(session, "{}")


@pytest.mark.parametrize(
    "draft", ["", "[]", "nonsense", '{"a":', "[" * 100_000, "{" + " " * 2000 + "}", '{"a": "\ud800"}']
)
def test_drafts_are_objects_of_bounded_size(tmp_path, draft):
    drafts = DraftStore(tmp_path, 1000, 10)
    with pytest.raises(RefusedError, match="draft"):
        drafts.save(SESSION, draft)
    assert drafts.load(SESSION) is None


def test_only_so_many_drafts_are_kept(tmp_path):
    drafts = DraftStore(tmp_path, 1000, 3)
    for k in range(6):
        drafts.save(f"{SESSION}{k}", "{}")
    assert len(list(tmp_path.iterdir())) == 3
    assert drafts.load(f"{SESSION}5") == "{}"
