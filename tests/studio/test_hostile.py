"""Hostile requests against a really running server: refused, with a line that says why, and nothing comes of them."""

import base64
import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.studio import hostile
from tests.studio.server import SESSION, Refused


@pytest.fixture(autouse=True)
def nothing_comes_of_it(studio):
    """Before and after: the server answers, and its folder holds the same."""
    before = sorted(path for path in studio.root.rglob("*") if path.is_file())
    yield
    assert studio.process.poll() is None
    assert studio.run("about")["model"] == "mini"
    assert sorted(path for path in studio.root.rglob("*") if path.is_file()) == before


def readable(message):
    """A line or more for people: no traceback, no inside of the machine."""
    assert message
    assert len(message) < 4000
    for inside in ("Traceback", 'File "', "/site-packages/", "root:x:0"):
        assert inside not in message


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in hostile.scenes()])
def test_scenes(studio, text):
    found = studio.run("check", text, None)
    assert not found["ok"]
    assert found["problems"]
    assert "scene" not in found
    for problem in found["problems"]:
        readable(problem["message"])
    with pytest.raises(Refused) as refused:
        studio.run("submit", text, None, SESSION)
    readable(refused.value.message)


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in hostile.files()])
def test_files(studio, content):
    found = studio.run("open_file", base64.b64encode(content).decode(), 512, 512)
    assert set(found) == {"kind", "problems"}
    assert found["kind"] == "refused"
    assert found["problems"]
    for problem in found["problems"]:
        readable(problem["message"])


@pytest.mark.parametrize(("operation", "arguments"), [pytest.param(o, a, id=name) for name, o, a in hostile.calls()])
def test_operations(studio, operation, arguments):
    try:
        found = studio.run(operation, *arguments)
    except Refused as refused:
        readable(refused.message)
        return
    # The two operations that answer with a list of problems do so here, too.
    assert operation in ("check", "open_file")
    assert found.get("kind") == "refused" or found["ok"] is False
    assert found["problems"]


@pytest.mark.parametrize("path", list(hostile.paths()))
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_addresses(studio, path, method):
    status, body = studio.send(path, b"{}" if method == "POST" else None)
    assert status in (401, 403, 404, 405)
    readable(json.loads(body)["error"])


def raw(studio, request: bytes) -> bytes:
    """Send bytes as they are and return the first of the answer."""
    address = urlsplit(studio.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(request)
        return connection.recv(65536)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /../../etc/passwd HTTP/1.1", b"404"),
        (b"GET //etc/passwd HTTP/1.1", b"404"),
        (b"GET /studio/runs/../../../../etc/passwd HTTP/1.1", b"404"),
        (b"GET http://example.org/ HTTP/1.1", b"40"),
        (b"GET /%00 HTTP/1.1", b"404"),
        (b"CONNECT example.org:443 HTTP/1.1", b"40"),
        (b"NONSENSE / HTTP/1.1", b"405"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
    ],
)
def test_bytes_that_no_browser_sends(studio, line, status):
    answer = raw(studio, line + b"\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ", 2)[1].startswith(status)
    assert b"root:" not in answer


def test_a_body_without_end_is_cut_off(studio):
    head = b"POST /gradio_api/run/check HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    said = raw(studio, head + b"Content-Length: 99999999999\r\n\r\n")
    assert b" 413 " in said.partition(b"\r\n")[0]
    address = urlsplit(studio.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        answer = b""
        try:
            for _ in range(40):
                connection.sendall(piece)
            answer = connection.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            return  # hung up on is refused, too
    assert b" 413 " in answer.partition(b"\r\n")[0] or not answer


BODIES = [
    b"", b"null", b"[]", b"{", b'{"data": 3}', b'{"data": null}', b'{"fn_index": 0}', b"[" * 100_000, b"\xff\xfe",
    b'{"data": [' + b"1," * 10_000 + b"1]}",
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:16])
@pytest.mark.parametrize("operation", ["check", "nothing_of_that_name", "__init__"])
def test_bodies_gradio_has_to_refuse(studio, operation, body):
    status, answer = studio.send(f"gradio_api/run/{operation}", body, headers={"content-type": "application/json"})
    assert status >= 400
    assert b"root:" not in answer


def test_there_are_enough_of_them():
    uploads = len(list(hostile.scenes())) + len(list(hostile.files()))
    assert uploads >= 60
    assert uploads + len(list(hostile.calls())) + 2 * len(list(hostile.paths())) >= 150
