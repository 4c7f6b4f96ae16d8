"""Results in a store: those of a local folder, whoever wrote them and however often they were stopped."""

import http.server
import json
import threading
from functools import partial

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from instancediffusion.cli import cli
from instancediffusion.cli.annotate import STAGES
from instancediffusion.datasets import open_dataset
from instancediffusion.errors import SettingsError
from instancediffusion.runs import ItemState, RunConflictError, RunDirectory
from instancediffusion.scene import save_scene
from instancediffusion.stores import Mirror, Store, is_url, local_copy
from tests.tiny_pipeline import scene_of, tiny_pipeline

QUICK = ["--steps", 2, "--guidance-scale", 1, "--mis-fraction", 0, "--device", "cpu"]


@pytest.fixture(scope="module")
def s3():
    """A server of S3 in this process; `pip install moto flask flask-cors s3fs` for the tests that need it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        yield system
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def url(request, tmp_path):
    if request.param == "s3":
        system = request.getfixturevalue("s3")
        system.mkdir("bucket")
        yield "s3://bucket"
        system.invalidate_cache()
        system.rm("bucket", recursive=True)
    elif request.param == "memory":
        yield "memory://bucket"
        fsspec.filesystem("memory").store.clear()
    else:
        yield f"file://{tmp_path}/bucket"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(folder / "tokenizer_of").save_pretrained(folder)
    return folder


def run(*args):
    done = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done.output


def pixels(content):
    import io

    return np.asarray(Image.open(io.BytesIO(content)))


def test_items_are_there_for_whoever_comes_next(url):
    mirror = Mirror.open(f"{url}/run")
    first = RunDirectory(mirror.folder, "generate")
    first.put("a", "1", {"a.png": b"a", "deep/b.txt": "b"}, {"note": 1})
    assert not list(mirror.folder.parent.rglob("*.png"))  # they are there, not here
    second = RunDirectory(mirror.folder, "generate")  # before the first settles: it may be killed any time
    assert second.state("a", "1") is ItemState.COMPLETE and second.state("a", "2") is ItemState.DIFFERENT
    assert second.item("a").record == {"note": 1}
    assert second.local("deep/b.txt").read_text() == "b"
    with pytest.raises(RunConflictError):
        second.put("a", "2", {"a.png": b"new"})
    second.put("b", "1", {"b.png": b"b"})
    first.settle()
    second.settle()
    third = RunDirectory(mirror.folder, "generate")
    assert list(third.items()) == ["a", "b"]  # two writers lose nothing
    manifest = json.loads(Store(f"{url}/run").read(["manifest.json"])["manifest.json"])
    assert manifest["kind"] == "generate" and "b" in manifest["items"]
    assert not [name for name in Store(f"{url}/run").sizes() if "/items/" in name]  # joined
    third.put("a", "2", {"a.png": b"newer"}, replace=True)
    fourth = RunDirectory(mirror.folder, "generate")
    assert fourth.state("a", "2") is ItemState.COMPLETE and fourth.local("a.png").read_bytes() == b"newer"
    Store(f"{url}/run").remove(["b.png"])
    assert RunDirectory(mirror.folder, "generate").state("b", "1") is ItemState.DAMAGED
    with pytest.raises(SettingsError, match="belongs to a 'generate' run"):
        RunDirectory(mirror.folder, "evaluate")
    mirror.close()
    assert not mirror.folder.parent.exists()


def test_a_killed_writer_leaves_no_file_that_nobody_may_touch(url, monkeypatch):
    mirror = Mirror.open(f"{url}/run")
    killed = RunDirectory(mirror.folder, "generate")
    written = []

    def once(self, name, content, write=Store.write):
        written.append(name)
        if len(written) == 3:  # announced, a file, and then
            raise KeyboardInterrupt
        write(self, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", once)
        with pytest.raises(KeyboardInterrupt):
            killed.put("a", "1", {"a.png": b"a", "b.png": b"b"})
    again = RunDirectory(mirror.folder, "generate")
    assert again.state("a", "1") is ItemState.MISSING
    again.put("a", "1", {"a.png": b"a", "b.png": b"b"})
    with pytest.raises(RunConflictError, match="no run we know of"):
        Store(f"{url}/run").write("c.png", b"somebody's")
        RunDirectory(mirror.folder, "generate").put("c", "1", {"c.png": b"c"})
    mirror.close()


def test_generate_and_make_write_into_a_store_what_they_write_into_a_folder(url, model, tmp_path):
    save_scene(scene_of(2), tmp_path / "scene.json")
    store = Store(url)
    store.write("scenes/scene.json", (tmp_path / "scene.json").read_bytes())
    common = ["--model", model, "--num-images", 2, *QUICK]
    run("generate", tmp_path / "scene.json", *common, "-o", tmp_path / "here")
    out = run("generate", f"{url}/scenes", *common, "-o", f"{url}/there")
    assert f"{url}/there/scene_1.png" in out
    for name in ("scene_0.png", "scene_1.png", "scene_overlay.png"):
        assert np.array_equal(pixels(store.read([f"there/{name}"])[f"there/{name}"]),
                              pixels((tmp_path / "here" / name).read_bytes()))  # fmt: skip
    again = run("generate", f"{url}/scenes/scene.json", *common, "-o", f"{url}/there")
    assert "2 of 2 pictures are there already" in again
    Store(f"{url}/there").remove(["scene_1.png"])
    assert "1 of 2 pictures are there already" in run("generate", f"{url}/scenes", *common, "-o", f"{url}/there")

    spec = (
        "pictures = 3\nsize = [64, 64]\ninstances = [1, 2]\n[[classes]]\nname = 'cat'\n"
        "[settings]\nnum_inference_steps = 2\nguidance_scale = 1.0\nmis_fraction = 0.0\n"
    )
    store.write("spec.toml", spec.encode())
    (tmp_path / "spec.toml").write_text(spec)
    told = ["--model", model, "--device", "cpu"]
    run("dataset", "make", tmp_path / "spec.toml", "-o", tmp_path / "animals", *told)
    for count in (3, 4):  # the second run finds what the first left, and makes one more
        run("dataset", "make", f"{url}/spec.toml", "-o", f"{url}/animals", "--pictures", count, *told)
        copy = local_copy(f"{url}/animals", tmp_path / f"copy{count}")
        found, here = open_dataset(copy), open_dataset(tmp_path / "animals")
        assert len(found) == count
        for number in range(3):
            assert found[number] == here[number] and np.array_equal(found[number].pixels(), here[number].pixels())
    assert "everything is there already" in run(
        "dataset", "make", f"{url}/spec.toml", "-o", f"{url}/animals", "--pictures", 4, *told
    )
    run("data", "convert", f"{url}/animals", f"{url}/yolo", "--to", "yolo")
    assert len(open_dataset(local_copy(f"{url}/yolo", tmp_path / "yolo"))) == 4
    refused = CliRunner().invoke(cli, ["data", "convert", f"{url}/animals", f"{url}/yolo", "--to", "yolo"])
    assert refused.exit_code == 2 and f"{url}/yolo: is there already and not empty" in refused.output
    assert f"{url}/animals: coco, 4 of 4 entries" in run("data", "info", f"{url}/animals")  # by its own name
    refused = CliRunner().invoke(cli, ["data", "info", f"{url}/spec.toml"])
    assert refused.exit_code == 2 and f"{url}/spec.toml: looks like no data set" in refused.output


def test_scenes_are_read_over_http(tmp_path):
    save_scene(scene_of(1), tmp_path / "one.json")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        copy = local_copy(f"{address}/one.json", tmp_path / "copy")
        assert copy.read_bytes() == (tmp_path / "one.json").read_bytes()
        with pytest.raises(SettingsError, match="the store cannot be used"):
            local_copy(f"{address}/none.json", tmp_path / "copy")
        server.shutdown()


def test_stores_that_cannot_be_used_are_told_in_a_line(tmp_path):
    for url, told in (("nowhere://a/b", "nowhere"), ("s3://bucket", "name a folder in the store")):
        done = CliRunner().invoke(cli, ["generate", "a cat", "-o", url])
        assert done.exit_code == 2 and told in done.output and "Traceback" not in done.output
    assert is_url("s3://a/b") and not is_url("C:/a") and not is_url("a cat, 3:4")
    Store(f"file://{tmp_path}/b").write("x", b"1")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["x"]  # nothing half written beside it


def test_a_data_set_that_was_sent_in_part_is_replaced_by_the_same_command(url, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        Image.new("RGB", (32, 24), (number, 0, 0)).save(source / f"{number}.png")
        (source / f"{number}.json").write_text(
            json.dumps({"shapes": [{"label": "cat", "shape_type": "rectangle", "points": [[1, 2], [9, 9]]}],
                        "imagePath": f"{number}.png", "imageHeight": 24, "imageWidth": 32})
        )  # fmt: skip
    command = ["data", "annotate", source, "--tags", "cat", *(f"--{stage}=none" for stage in STAGES)]
    run(*command, "-o", tmp_path / "here")
    store = Store(f"{url}/set")
    for stop in (1, 3, 6, 7):
        written = []

        def once(self, name, content, write=Store.write, stop=stop, written=written):
            written.append(name)
            if len(written) == stop:
                raise KeyboardInterrupt
            write(self, name, content)

        with monkeypatch.context() as patched:
            patched.setattr(Mirror, "push", stopping(Mirror.push, once))
            CliRunner().invoke(cli, [str(part) for part in (*command, "-o", f"{url}/set")])
        assert len(written) == stop
    left = store.sizes()
    refused = CliRunner().invoke(cli, [str(part) for part in (*command, "-o", f"{url}/set", "--score", 7)])
    assert refused.exit_code == 2 and store.sizes() == left != {}
    run(*command, "-o", f"{url}/set")
    assert set(store.sizes()) == {
        path.relative_to(tmp_path / "here").as_posix() for path in (tmp_path / "here").rglob("*") if path.is_file()
    }
    for name, content in store.read(store.sizes()).items():
        assert content == (tmp_path / "here" / name).read_bytes()
    # Pictures that are gone go there, too; nothing new is nothing sent.
    (source / "2.png").unlink()
    (source / "2.json").unlink()
    run(*command, "-o", f"{url}/set")
    assert "images/2.png" not in store.sizes() and "images/3.png" in store.sizes()
    with monkeypatch.context() as patched:
        sent = []
        patched.setattr(Mirror, "push", stopping(Mirror.push, lambda self, name, content: sent.append(name)))
        assert "is up to date" in run(*command, "-o", f"{url}/set")
        assert sent == ["set.records/failed.jsonl"]


def stopping(push, write):
    """A `push` whose writes go through another function."""

    def patched(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "write", write)
            push(self)

    return patched
