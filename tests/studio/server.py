"""A really running studio for tests: the real command with the real `mini`, in a process of its own."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SESSION = "test-session-0123456789"

# Notes every address that is connected to or looked up, then runs the command.
_RECORDING = """
import json, os, socket, sys
log = open(os.environ["STUDIO_TEST_LOG"], "a", buffering=1)
def noting(owner, name, address_of):
    real = getattr(owner, name)
    def noted(*args, **kwargs):
        log.write(json.dumps([name, str(address_of(args))]) + "\\n")
        return real(*args, **kwargs)
    setattr(owner, name, noted)
noting(socket.socket, "connect", lambda args: args[1][0] if isinstance(args[1], tuple) else args[1])
noting(socket.socket, "connect_ex", lambda args: args[1][0] if isinstance(args[1], tuple) else args[1])
noting(socket, "getaddrinfo", lambda args: args[0])
from instancediffusion.cli import main
main(sys.argv[1:])
"""


class Running:
    """A studio that answers.

    Attributes:
        url: its address, ending in `/`.
        root: its folder of results and drafts.
        log: addresses its process reached for, one JSON pair a line.
        process: its process.
    """

    def __init__(self, url: str, root: Path, log: Path, process: subprocess.Popen[str]) -> None:
        self.url, self.root, self.log, self.process = url, root, log, process

    def send(
        self, path: str, data: bytes | None = None, *, method: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of a request; errors are answers, too."""
        request = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def run(self, operation: str, *arguments: Any) -> Any:
        """Call an operation; raises `Refused` with the server's message."""
        body = json.dumps({"data": list(arguments)}).encode()
        status, answer = self.send(f"gradio_api/run/{operation}", body, headers={"content-type": "application/json"})
        if status != 200:
            raise Refused(status, json.loads(answer).get("error") or "")
        return json.loads(answer)["data"][0]

    def finished(self, job: str, seconds: float = 60) -> dict[str, Any]:
        """Wait for the end of a job."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            state: dict[str, Any] = self.run("job", job)
            if state["state"] in ("done", "failed", "cancelled"):
                return state
            time.sleep(0.05)
        raise TimeoutError(f"job {job} did not end: {state}")

    def memory_mib(self) -> float:
        """Memory its process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Refused(Exception):
    """The server's answer was an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@contextmanager
def running(root: Path, *options: str, log: Path | None = None) -> Iterator[Running]:
    """Start the command and stop it as Ctrl-C does."""
    log = log or root.with_suffix(".log")
    log.touch()
    environment = {**os.environ, "STUDIO_TEST_LOG": str(log), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("GRADIO_ANALYTICS_ENABLED", None)
    command = [sys.executable, "-u", "-c", _RECORDING, "studio", "-o", str(root), *options]
    if "--port" not in options:
        command += ["--port", "0"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert line.startswith("studio: http"), line + "".join(errors)
        yield Running(line.split()[1], root, log, process)
    finally:
        process.send_signal(2)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        reader.join(5)
        if os.environ.get("STUDIO_TEST_VERBOSE"):
            sys.stderr.write("".join(errors))
