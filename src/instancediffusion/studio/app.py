"""The studio as a Gradio server: the only module that knows Gradio.

Gradio's server mode carries the queue, the streams, the API for `gradio_client` and the log-in; the page is the
package's own.
"""

# No `from __future__ import annotations`: Gradio reads the types of the operations from their signatures.

import asyncio
import functools
import hmac
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from typing import Any

from instancediffusion.errors import InstanceDiffusionError
from instancediffusion.studio.bounds import RefusedError
from instancediffusion.studio.guard import Guard, hosts_for, is_loopback
from instancediffusion.studio.jobs import ENDED
from instancediffusion.studio.operations import Studio

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_POLL_SECONDS = 0.08


def serve(
    studio: Studio,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: tuple[str, str] | None = None,
    started: Callable[[str], None] = lambda url: None,  # noqa: ARG005
    wait: Callable[[], None] | None = None,
) -> None:
    """Answer on an address until `wait` returns.

    Args:
        studio: the operations.
        host: the address; one that other machines reach should have `auth`.
        port: the port; 0 takes a free one.
        auth: user name and password to ask for.
        started: called with the address once the server answers.
        wait: returns when the server is to stop; None waits for an interrupt from the keyboard.

    Raises:
        RefusedError: Gradio is missing, or the port is taken.
    """
    gradio = load_gradio()
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    port = port or _free_port(host)
    server = gradio.Server(title="instancediffusion studio", docs_url=None, redoc_url=None, openapi_url=None)
    cookies = _Cookies(server, needed=auth is not None)
    _routes(server, studio, cookies)
    _operations(gradio, server, studio)
    server.add_middleware(
        Guard,
        body_bytes=studio.limits.body_bytes,
        in_flight=studio.limits.in_flight,
        hosts=hosts_for(host),
        may_enter=cookies.let_in,
    )
    try:
        _, url, _ = server.launch(
            server_name=host, server_port=port, auth=_password(auth), prevent_thread_lock=True, quiet=True,
            show_error=True, share=False, inbrowser=False, inline=False, allowed_paths=[], blocked_paths=["/"],
            max_file_size=1, enable_monitoring=False, run_history=False, footer_links=[], ssr_mode=False, pwa=False,
            mcp_server=False, num_workers=0, state_session_capacity=64, strict_cors=True, root_path="",
            _frontend=False,
        )  # fmt: skip
    except OSError as error:
        raise RefusedError(f"port: {port} on {host} cannot be used ({error}); choose another with --port") from error
    shown = url if is_loopback(host) else f"http://{host}:{port}/"
    started(shown)
    try:
        (wait or _forever)()
    finally:
        server.get_blocks().close(verbose=False)
        studio.close()


def load_gradio() -> Any:
    """Import Gradio with everything off that would call home.

    Raises:
        RefusedError: it is missing or too old.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for name in ("GRADIO_ALLOWED_PATHS", "GRADIO_SHARE", "GRADIO_WATCH_DIRS", "GRADIO_ROOT_PATH"):
        os.environ.pop(name, None)
    try:
        import gradio
    except ImportError as error:
        raise RefusedError("the studio needs Gradio: pip install 'instancediffusion[studio]'") from error
    if not hasattr(gradio, "Server"):
        raise RefusedError("this Gradio is too old for the studio: pip install 'instancediffusion[studio]'")
    return gradio


class _Cookies:
    """Who is logged in, by Gradio's own cookies.

    Args:
        server: the Gradio server.
        needed: whether users have to log in.
    """

    def __init__(self, server: Any, *, needed: bool) -> None:
        self._server, self._needed = server, needed

    def let_in(self, cookies: dict[str, str]) -> bool:
        if not self._needed:
            return True
        names = (f"access-token-{self._server.cookie_id}", f"access-token-unsecure-{self._server.cookie_id}")
        return any(cookies.get(name) in self._server.tokens for name in names if name in cookies)


def _password(auth: tuple[str, str] | None) -> Callable[[str, str], bool] | None:
    """A check that takes as long for a wrong name as for a wrong password, and slows brute force down."""
    if auth is None:
        return None

    def correct(user: str, password: str) -> bool:
        right_user = hmac.compare_digest(user.encode(), auth[0].encode())
        right = hmac.compare_digest(password.encode(), auth[1].encode()) and right_user
        if not right:
            time.sleep(0.5)
        return right

    return correct


def _routes(server: Any, studio: Studio, cookies: _Cookies) -> None:
    """What is fetched by address: the page, pictures, archives."""
    from fastapi import Request
    from fastapi.responses import JSONResponse, Response

    pages = resources.files("instancediffusion.studio") / "editor"

    def unit(name: str) -> Response:
        content = (pages / name).read_bytes()
        kind = _TYPES[name.rpartition(".")[2]]
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    def answer(make: Callable[[], bytes], kind: str, **headers: str) -> Response:
        try:
            return Response(make(), media_type=kind, headers=headers)
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, status_code=404)

    @server.get("/")  # type: ignore[untyped-decorator, unused-ignore]
    def page(request: Request) -> Response:
        return unit("index.html" if cookies.let_in(dict(request.cookies)) else "login.html")

    @server.get("/studio/editor/{name}")  # type: ignore[untyped-decorator, unused-ignore]
    def editor(name: str) -> Response:
        if name not in {entry.name for entry in pages.iterdir()} or name.endswith(".html"):
            return JSONResponse({"error": "there is nothing here"}, status_code=404)
        return unit(name)

    @server.get("/studio/runs/{run}.zip")  # type: ignore[untyped-decorator, unused-ignore]
    def archive(run: str) -> Response:
        name = f'attachment; filename="instancediffusion-{run}.zip"'
        return answer(lambda: studio.store.zipped(run), "application/zip", **{"content-disposition": name})

    @server.get("/studio/runs/{run}/{name}")  # type: ignore[untyped-decorator, unused-ignore]
    def result_file(run: str, name: str) -> Response:
        kind = "image/png" if name.endswith(".png") else "application/json"
        # A picture is never written a second time; a manifest may still grow.
        kept = "private, max-age=604800, immutable" if kind == "image/png" else "no-cache"
        return answer(lambda: studio.store.file(run, name).read_bytes(), kind, **{"cache-control": kept})

    @server.get("/studio/examples/{name}.png")  # type: ignore[untyped-decorator, unused-ignore]
    def thumbnail(name: str) -> Response:
        return answer(lambda: studio.examples.thumbnail(name), "image/png")

    @server.get("/studio/jobs/{job}/{index}.png")  # type: ignore[untyped-decorator, unused-ignore]
    def preview(job: str, index: int) -> Response:
        return answer(lambda: studio.preview(job, index), "image/png", **{"cache-control": "no-store"})


# What is called by name, from the page and from `gradio_client` -> the method of `Studio`.
_QUICK = {
    "about": "about",
    "check": "check",
    "convert": "convert",
    "open_file": "open_file",
    "additions": "additions",
    "keep_picture": "keep_picture",
    "submit": "submit",
    "job": "job",
    "jobs": "jobs",
    "cancel": "cancel",
    "results": "results",
    "result": "result",
    "examples": "example_list",
    "example": "example",
    "save_draft": "save_draft",
    "load_draft": "load_draft",
}


def _operations(gradio: Any, server: Any, studio: Studio) -> None:
    """Register the operations; Gradio reads their arguments and types from the methods."""

    def answered(work: Callable[[], Any]) -> Any:
        """Turn an error a user can mend into Gradio's; its message is all they get."""
        try:
            return work()
        except InstanceDiffusionError as error:
            raise gradio.Error(str(error)[:2000], print_exception=False) from None

    def quick(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def operation(*arguments: Any) -> Any:
            return answered(lambda: method(*arguments))

        return operation

    for name, method in _QUICK.items():
        server.api(quick(getattr(studio, method)), name=name, queue=False)
    for stream in _streams(gradio, studio, answered):
        # Gradio takes the type of what is yielded from here.
        stream.__annotations__["return"] = dict[str, Any]
        server.api(stream, name=stream.__name__, concurrency_limit=None)


def _streams(gradio: Any, studio: Studio, answered: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The operations that answer more than once."""
    watching = [0]

    async def watch(job: str) -> AsyncIterator[dict[str, Any]]:
        """Report how far a job is, whenever there is news, until it has ended."""
        if watching[0] >= studio.limits.watchers:
            raise gradio.Error("too many pages follow their jobs; try again later", print_exception=False)
        found, seen = answered(lambda: studio.queue.get(job)), (-1, -1)
        watching[0] += 1
        try:
            while True:
                version, shown = found.version, studio.shown(found)
                if (version, shown["ahead"]) != seen:
                    seen = (version, shown["ahead"])
                    yield shown
                if shown["state"] in ENDED:
                    return
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            watching[0] -= 1

    async def generate(scene: str, options: dict[str, Any] | None, session: str) -> AsyncIterator[dict[str, Any]]:
        """Queue a request and report how far it is until it has ended."""
        queued = answered(lambda: studio.submit(scene, options, session))
        async for shown in watch(queued["job"]):
            yield shown

    return [watch, generate]


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])


def _forever() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
