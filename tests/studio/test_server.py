"""The server as people start it: offline, shut to strangers, and with all its results after a restart."""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.parse

import pytest
from click.testing import CliRunner

from instancediffusion.cli import cli
from tests.studio.server import SESSION, Refused, running

QUICK = {"settings": {"num_inference_steps": 4}, "seed": 7}


@pytest.fixture(scope="module")
def demo(examples):
    return (examples / "demo.json").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--host", "0.0.0.0"], "--auth"),
        (["--host", "192.168.0.2"], "--no-auth"),
        (["--host", "example.org"], "--auth"),
        (["--auth", "nobody"], "USER:PASSWORD"),
        (["--auth", ":secret"], "USER:PASSWORD"),
        (["--auth", "me:secret", "--no-auth"], "leave one"),
        (["--port", "70000"], "port"),
        (["--max-pictures", "0"], "max-pictures"),
    ],
)
def test_what_must_not_be_started_is_not(options, told, tmp_path):
    result = CliRunner().invoke(cli, ["studio", "-o", str(tmp_path / "out"), *options])
    assert result.exit_code == 2
    assert told in result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_picture_from_submit_to_download(studio, demo):
    job = studio.run("submit", demo, {**QUICK, "pictures": 2}, SESSION)["job"]
    state = studio.finished(job)
    assert state["state"] == "done", state
    run = state["result"]
    found = studio.run("result", run)
    assert [picture["seed"] for picture in found["pictures"]] == [7, 8]
    for picture in found["pictures"]:
        status, png = studio.send(picture["url"].lstrip("/"))
        assert status == 200
        again = studio.run("open_file", base64.b64encode(png).decode(), 512, 512)
        assert again["seed"] == picture["seed"]
        assert again["scene"] == json.loads(demo)
    assert studio.send(found["zip"].lstrip("/"))[1].startswith(b"PK")
    assert json.loads(studio.send(found["scene_url"].lstrip("/"))[1]) == json.loads(demo)
    assert studio.run("results", 1, None)[0]["id"] == run
    assert (studio.root / "runs" / run / "manifest.json").is_file()


def test_the_same_request_gives_the_same_picture_and_another_order_another(studio, demo):
    swapped = json.loads(demo)
    for instance in swapped["instances"]:
        if "z_order" in instance:
            instance["z_order"] = -instance["z_order"]
    pictures = []
    for text in (demo, demo, json.dumps(swapped)):
        run = studio.finished(studio.run("submit", text, QUICK, SESSION)["job"])["result"]
        pictures.append((studio.root / "runs" / run / "scene_7.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0] != pictures[2]


def test_a_failing_job_leaves_the_server_and_the_next_job_alone(studio, demo):
    bad = studio.run("submit", demo, {"settings": {"num_inference_steps": 150, "scheduler": "lcm"}}, SESSION)["job"]
    good = studio.run("submit", demo, QUICK, SESSION)["job"]
    failed = studio.finished(bad)
    assert failed["state"] == "failed"
    assert "num_inference_steps" in failed["error"]
    assert studio.finished(good)["state"] == "done"


def test_cancel_frees_the_worker(studio, demo):
    long = studio.run("submit", demo, {"settings": {"num_inference_steps": 200}}, SESSION)["job"]
    limit = time.monotonic() + 30
    while studio.run("job", long).get("step", 0) < 1:
        assert time.monotonic() < limit
        time.sleep(0.05)
    studio.run("cancel", long)
    state = studio.finished(long, 10)
    assert state["state"] == "cancelled"
    assert state["step"] < 100
    assert studio.finished(studio.run("submit", demo, QUICK, SESSION)["job"])["state"] == "done"


def test_too_many_jobs_of_one_session_are_refused(studio, demo):
    session, jobs = "somebody-who-wants-all", []
    try:
        with pytest.raises(Refused, match="your jobs"):
            for _ in range(6):
                jobs.append(studio.run("submit", demo, {"settings": {"num_inference_steps": 200}}, session)["job"])
        assert len(jobs) == 4
    finally:
        for job in jobs[::-1]:
            studio.run("cancel", job)
        for job in jobs:
            studio.finished(job)


def test_the_api_example_runs(studio, repository, tmp_path):
    script = repository / "examples" / "studio_client.py"
    command = [
        sys.executable,
        str(script),
        studio.url,
        str(repository / "examples" / "demo.json"),
        str(tmp_path / "out"),
    ]
    environment = {**os.environ, "STUDIO_STEPS": "4"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "step" in result.stdout
    pictures = list((tmp_path / "out").glob("*.png"))
    assert len(pictures) == 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_it_reaches_for_nothing_but_this_machine(studio):
    noted = [json.loads(line) for line in studio.log.read_text().splitlines()]
    assert noted  # the recording works: gradio asks its own server whether it is up
    outside = [
        pair
        for pair in noted
        if pair[1] not in ("127.0.0.1", "localhost", "::1", "None") and not pair[1].startswith("/")
    ]
    assert outside == []


def test_a_restart_lists_the_results_and_keeps_the_drafts(tmp_path, demo):
    with running(tmp_path / "root") as server:
        run = server.finished(server.run("submit", demo, QUICK, SESSION)["job"])["result"]
        server.run("save_draft", SESSION, '{"version": 1, "saved": 5}')
    with running(tmp_path / "root") as server:
        assert [summary["id"] for summary in server.run("results", 5, None)] == [run]
        assert server.run("result", run)["settings"]["scene_7"]["num_inference_steps"] == 4
        assert json.loads(server.run("load_draft", SESSION))["saved"] == 5
        assert server.run("load_draft", SESSION + "x") is None
        assert server.send(f"studio/runs/{run}/scene_7.png")[0] == 200


def test_with_auth_strangers_see_the_door_only(tmp_path):
    with running(tmp_path / "root", "--auth", "ada:a long secret") as server:
        status, page = server.send("")
        assert status == 200
        assert b"Password" in page
        assert b"app.js" not in page
        for path in ("config", "gradio_api/info", "gradio_api/heartbeat/x", "studio/examples/demo.png"):
            assert server.send(path)[0] == 401
        with pytest.raises(Refused) as refused:
            server.run("about")
        assert refused.value.status == 401
        assert server.send("gradio_api/cancel", b"{}", headers={"content-type": "application/json"})[0] == 401

        def log_in(password):
            body = urllib.parse.urlencode({"username": "ada", "password": password}).encode()
            return server.send("login", body, headers={"content-type": "application/x-www-form-urlencoded"})[0]

        assert log_in("wrong") == 400
        assert log_in("a long secret") == 200
        from gradio_client import Client

        client = Client(server.url, auth=("ada", "a long secret"), verbose=False, analytics_enabled=False)
        assert client.predict(api_name="/about")["model"] == "mini"
        client.close()
