"""The allow list of the server: every request passes here first, and what is not on the list is not answered.

Gradio brings routes the studio does not need (uploads, files, proxies, streams, an editor of its own). None of them
can be reached: paths are allowed one by one, not forbidden one by one. Pure ASGI, without a framework.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_API = "/gradio_api"
_WORD = r"[A-Za-z0-9_-]{1,80}"
OPEN = (
    # Without logging in: the page that asks for the password, its looks, and gradio's own look whether it is up.
    ("GET", r"/"),
    ("GET", rf"/studio/editor/{_WORD}\.(?:js|css|svg)"),
    ("POST", r"/login/?"),
    ("GET", rf"{_API}/startup-events"),
)
ROUTES = (
    *OPEN,
    ("GET", r"/logout"),
    ("GET", rf"/studio/runs/{_WORD}\.zip"),
    ("GET", rf"/studio/runs/{_WORD}/[A-Za-z0-9_.-]{{1,120}}"),
    ("GET", rf"/studio/examples/{_WORD}\.png"),
    ("GET", rf"/studio/jobs/{_WORD}/[0-9]{{1,3}}\.png"),
    ("GET", r"/config/?"),
    ("GET", rf"{_API}/info/?"),
    ("GET", rf"{_API}/login_check/?"),
    ("GET", rf"{_API}/heartbeat/{_WORD}"),
    ("POST", rf"{_API}/run/{_WORD}"),
    ("POST", rf"{_API}/call/{_WORD}"),
    ("GET", rf"{_API}/call/{_WORD}/{_WORD}"),
    ("POST", rf"{_API}/queue/join"),
    ("GET", rf"{_API}/queue/data"),
    ("POST", rf"{_API}/cancel"),
    ("POST", rf"{_API}/reset/?"),
)
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_BODY_SECONDS = 60.0
_HEADERS = (
    (b"content-security-policy",
     b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
     b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)  # fmt: skip


class Guard:
    """Middleware that lets through what is allowed, and says in a line why the rest is not.

    Args:
        app: the application behind it.
        body_bytes: largest body of a request.
        in_flight: most requests at once.
        hosts: names the server may be called by in the `Host` header, or None for any. A page of another site that
            has its name point to this machine is turned away by it.
        may_enter: whether, by the cookies of a request, it is logged in.
    """

    def __init__(
        self,
        app: App,
        *,
        body_bytes: int,
        in_flight: int,
        hosts: frozenset[str] | None,
        may_enter: Callable[[dict[str, str]], bool],
    ) -> None:
        self._app, self._body_bytes, self._in_flight = app, body_bytes, in_flight
        self._hosts, self._may_enter = hosts, may_enter
        self._routes, self._open = _compiled(ROUTES), _compiled(OPEN)
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        self._count += 1
        try:
            await self._pass_on(scope, receive, send)
        finally:
            self._count -= 1

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        method, path = "GET" if scope["method"] == "HEAD" else scope["method"], scope["path"]
        host = _host(headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            return 403, "this server answers on this machine only; start it with --host to be called by another name"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return 403, "requests from pages of other sites are not answered"
        if not any(match(path) for verb, match in self._routes if verb == method):
            known = any(match(path) for _, match in self._routes)
            return (405, f"{method} is not answered here") if known else (404, "there is nothing here")
        if not any(verb == method and match(path) for verb, match in self._open) and not self._may_enter(
            _cookies(headers.get("cookie", ""))
        ):
            return 401, "log in first"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > self._body_bytes:
            return 413, f"the request is larger than {self._body_bytes >> 20} MB"
        if self._count >= self._in_flight:
            return 503, "too many requests at once; try again in a moment"
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, ended, read, too_large = False, False, 0, False

        async def bounded() -> Message:
            nonlocal ended, read, too_large
            if ended:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), _BODY_SECONDS)
            except asyncio.TimeoutError:
                ended = True
                return {"type": "http.disconnect"}
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                ended = not message.get("more_body", False)
                if read > self._body_bytes:
                    too_large = ended = True
                    return {"type": "http.disconnect"}
            return message

        async def secured(message: Message) -> None:
            nonlocal started
            if too_large and not started:
                return
            if message["type"] == "http.response.start":
                started = True
                have = {name.lower() for name, _ in message.get("headers", [])}
                message["headers"] = [
                    *message.get("headers", []),
                    *((name, value) for name, value in _HEADERS if name not in have),
                ]
            await send(message)

        try:
            await self._app(scope, bounded, secured)
        finally:
            if too_large and not started:
                await _answer(send, 413, f"the request is larger than {self._body_bytes >> 20} MB")


def hosts_for(host: str) -> frozenset[str] | None:
    """The names a server on this address is called by; None for an address other machines reach."""
    return LOOPBACK | {host.strip("[]").lower()} if is_loopback(host) else None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host.strip("[]").lower() in LOOPBACK or bool(re.fullmatch(r"127(?:\.\d{1,3}){3}", host))


def _compiled(routes: Iterable[tuple[str, str]]) -> list[tuple[str, Callable[[str], object]]]:
    return [(verb, re.compile(path).fullmatch) for verb, path in routes]


def _host(value: str) -> str:
    if value.startswith("["):
        return value[1:].partition("]")[0].lower()
    return value.partition(":")[0].lower()


def _cookies(header: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return {name: value for name, _, value in pairs if name}


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
