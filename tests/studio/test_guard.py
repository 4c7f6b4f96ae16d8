"""The door of the server, without a server."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from instancediffusion.studio.guard import LOOPBACK, Guard, hosts_for, is_loopback


async def application(scope, receive, send):
    """Reads all of a body and answers with its length."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(length).encode()})


def ask(
    path="/", method="GET", headers=(), body=(b"",), *, hosts=LOOPBACK, logged_in=True, app=application, in_flight=8
):
    guard = Guard(app, body_bytes=1 << 20, in_flight=in_flight, hosts=hosts, may_enter=lambda cookies: logged_in)
    given = {"host": "127.0.0.1:7860", **dict(headers)}
    scope = {
        "type": "http", "method": method, "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip
    chunks, sent = list(body), []

    async def receive():
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message):
        sent.append(message)

    # In a thread of its own: the browser tests leave an event loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(guard(scope, receive, send))).result()
    start = next((message for message in sent if message["type"] == "http.response.start"), None)
    content = b"".join(message.get("body", b"") for message in sent)
    return (start["status"] if start else None), content, dict(start["headers"]) if start else {}


def test_what_is_needed_goes_through_with_headers_that_keep_others_out():
    status, _, headers = ask()
    assert status == 200
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'self'" in policy
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/gradio_api/file=/etc/passwd", 404),
        ("GET", "/gradio_api/file/etc/passwd", 404),
        ("GET", "/file=/etc/passwd", 404),
        ("POST", "/gradio_api/upload", 404),
        ("GET", "/gradio_api/proxy=http://example.org", 404),
        ("POST", "/gradio_api/component_server", 404),
        ("POST", "/gradio_api/vibe-edit", 404),
        ("POST", "/gradio_api/process_recording", 404),
        ("GET", "/gradio_api/stream/a/b/c/playlist.m3u8", 404),
        ("GET", "/monitoring", 404),
        ("GET", "/assets/index.js", 404),
        ("GET", "/static/x", 404),
        ("GET", "/svelte/x", 404),
        ("GET", "/docs", 404),
        ("GET", "/gradio_api/openapi.json", 404),
        ("GET", "/gradio_api/token", 404),
        ("GET", "/studio/runs/../../secret", 404),
        ("GET", "/studio/runs/x/..", 200),  # a name like any other: the store knows no such file
        ("GET", "/studio/editor/app.py", 404),
        ("GET", "/studio/editor/index.html", 404),
        ("GET", "//etc/passwd", 404),
        ("GET", "/\0", 404),
        ("PUT", "/", 405),
        ("DELETE", "/config", 405),
        ("OPTIONS", "/config", 405),
        ("POST", "/config", 405),
        ("GET", "/gradio_api/queue/join", 405),
    ],
)
def test_routes_are_allowed_one_by_one(method, path, status):
    found, body, _ = ask(path, method)
    assert found == status
    if status >= 400:
        assert json.loads(body)["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[::2]:7860", "192.168.1.9"]
)
def test_other_names_for_this_machine_are_turned_away(host):
    assert ask(headers={"host": host}.items())[0] == 403
    assert ask(headers={"host": host}.items(), hosts=None)[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:1", "[::1]:7860", "LOCALHOST"])
def test_its_own_names_are_good(host):
    assert ask(headers={"host": host}.items())[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:7860", "file://"]
)
def test_pages_of_other_sites_are_not_answered(origin):
    assert ask("/gradio_api/queue/join", "POST", {"origin": origin}.items())[0] == 403


def test_its_own_page_is_answered():
    assert ask("/gradio_api/queue/join", "POST", {"origin": "http://127.0.0.1:7860"}.items())[0] == 200


@pytest.mark.parametrize("path", ["/config", "/gradio_api/info", "/studio/runs/a/b.png", "/gradio_api/heartbeat/x"])
def test_without_log_in_only_the_door_is_seen(path):
    assert ask(path, logged_in=False)[0] == 401
    assert ask("/", logged_in=False)[0] == 200
    assert ask("/studio/editor/login.js", logged_in=False)[0] == 200
    assert ask("/gradio_api/cancel", "POST", logged_in=False)[0] == 401


@pytest.mark.parametrize("length", ["1048577", "99999999999999999999999", "-1", "abc", "1e9", "٣"])
def test_a_body_that_says_it_is_too_large_is_not_read(length):
    def never(scope, receive, send):
        raise AssertionError("it went through")

    try:
        status = ask("/login", "POST", {"content-length": length}.items(), app=never)[0]
    except UnicodeEncodeError:
        return
    assert status == 413


def test_a_body_that_does_not_say_its_length_is_counted():
    assert ask("/login", "POST", body=[b"x" * 300_000] * 3)[:2] == (200, b"900000")
    status, body, _ = ask("/login", "POST", body=[b"x" * 300_000] * 9)
    assert status == 413
    assert "1 MB" in json.loads(body)["error"]


def test_requests_at_once_are_bounded():
    assert ask(in_flight=0)[0] == 503


def test_addresses_of_this_machine():
    for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.9.1", "LocalHost"):
        assert is_loopback(host)
        assert hosts_for(host) >= LOOPBACK | {host.strip("[]").lower()}
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", "127.0.0.1.example.org", "", "1270.0.0.1"):
        assert not is_loopback(host)
        assert hosts_for(host) is None
