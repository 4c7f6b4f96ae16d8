"""Many users of one studio: clients that queue pictures, check what they get, and watch the server's memory.

    python benchmarks/studio_load.py --clients 20 --minutes 3

Starts the command with `mini` on this machine, or uses `--url`. Each client asks for small pictures of scenes of its
own, follows its jobs (half of the clients by Gradio's stream, half by asking again and again), and checks that every
result is its own: the prompt, the seed and the scene in the PNG it downloads.

Prints one JSON report and exits with 1 if anything was lost, mixed up or refused without reason, or if memory grew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

ANIMALS = ("dog", "cat", "panda", "fox", "horse", "cow", "pig", "rabbit", "lion", "tiger")


class Client:
    """One user: asks, waits, checks, asks again."""

    def __init__(self, number: int, url: str, steps: int, report: Report) -> None:
        self.number, self.url, self.steps, self.report = number, url, steps, report
        self.random = random.Random(number)
        self.session = f"load-client-{number:04d}-{os.getpid()}"

    def run(self, until: float) -> None:
        """Make pictures until a time, one after the other."""
        while time.monotonic() < until:
            try:
                self.picture()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is what the report is for
                self.report.fault(f"client {self.number}: {type(error).__name__}: {error}")

    def picture(self) -> None:
        """Ask for one picture and check that it is the one that was asked for."""
        scene, seed = self.scene(), self.random.randrange(2**31)
        options = {"settings": {"num_inference_steps": self.steps, "mis_fraction": 0.0}, "seed": seed}
        start = time.monotonic()
        try:
            state = (self.streamed if self.number % 2 else self.polled)(json.dumps(scene), options, self.session)
        except RefusedError as refused:
            if "queue is full" not in str(refused):
                raise
            self.report.count("told that the queue is full")
            time.sleep(0.5)
            return
        if state["state"] != "done":
            raise RuntimeError(f"{state['state']}: {state['error']}")
        result = self.call("result", state["result"])
        (picture,) = result["pictures"]
        png = self.get(picture["url"].lstrip("/"))
        if result["prompt"] != scene["prompt"] or picture["seed"] != seed or result["scenes"][picture["key"]] != scene:
            raise RuntimeError(f"mixed up: asked for {scene['prompt']!r} {seed}, got {result['prompt']!r}")
        if not png.startswith(b"\x89PNG") or scene["prompt"].encode() not in png:
            raise RuntimeError("mixed up: the picture carries another scene")
        self.report.made(time.monotonic() - start)

    def polled(self, *request: Any) -> dict[str, Any]:
        """Ask, and ask again until it has ended."""
        state: dict[str, Any] = self.call("submit", *request)
        while state["state"] not in ("done", "failed", "cancelled"):
            time.sleep(0.2)
            state = self.call("job", state["job"])
        return state

    def streamed(self, *request: Any) -> dict[str, Any]:
        """Ask, and read the stream to its end."""
        post = urllib.request.Request(
            f"{self.url}gradio_api/call/generate",
            json.dumps({"data": request}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(post, timeout=120) as answer:
            event = json.load(answer)["event_id"]
        state: dict[str, Any] = {}
        with urllib.request.urlopen(f"{self.url}gradio_api/call/generate/{event}", timeout=600) as stream:
            kind = ""
            for line in stream:
                text = line.decode().strip()
                if text.startswith("event: "):
                    kind = text.removeprefix("event: ")
                elif text.startswith("data: ") and kind == "error":
                    raise RefusedError(text)
                elif text.startswith("data: ") and kind == "generating":
                    state = json.loads(text.removeprefix("data: "))[0]
        return state

    def scene(self) -> dict[str, Any]:
        """A scene no other client asks for."""
        x, y = self.random.randrange(200), self.random.randrange(200)
        animal = self.random.choice(ANIMALS)
        box = [x, y, x + 100 + self.number, y + 150]
        return {
            "version": 1, "prompt": f"a {animal} in a meadow, {self.number} {x} {y}", "width": 512, "height": 512,
            "instances": [{"caption": f"a {animal}", "box": box, "z_order": 0}],
        }  # fmt: skip

    def call(self, operation: str, *arguments: Any) -> Any:
        """Call an operation."""
        body = json.dumps({"data": arguments}).encode()
        request = urllib.request.Request(
            f"{self.url}gradio_api/run/{operation}", body, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["data"][0]
        except urllib.error.HTTPError as error:
            raise RefusedError(json.loads(error.read()).get("error")) from None

    def get(self, path: str) -> bytes:
        """Download a file."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            content: bytes = answer.read()
            return content


class RefusedError(Exception):
    """The server said no."""


class Report:
    """What happened, from all clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waits: list[float] = []
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.memory: list[tuple[float, float]] = []

    def made(self, seconds: float) -> None:
        """Count a picture."""
        with self._lock:
            self.waits.append(seconds)

    def fault(self, text: str) -> None:
        """Note a fault."""
        with self._lock:
            self.faults.append(text)

    def count(self, what: str) -> None:
        """Count anything else."""
        with self._lock:
            self.counts[what] += 1

    def summary(self) -> dict[str, Any]:
        """The report as JSON."""
        waits = sorted(self.waits)
        middle = [memory for seconds, memory in self.memory if seconds >= self.memory[-1][0] / 3] if self.memory else []
        half = len(middle) // 2
        growth = (sum(middle[half:]) / len(middle[half:]) - sum(middle[:half]) / half) if half else 0.0
        return {
            "pictures": len(waits),
            "seconds_from_asking_to_having": {
                "median": _at(waits, 0.5),
                "95 %": _at(waits, 0.95),
                "most": _at(waits, 1),
            },
            "faults": len(self.faults),
            "first_faults": self.faults[:5],
            **self.counts,
            "memory_mib": [round(memory) for _, memory in self.memory[:: max(1, len(self.memory) // 12)]],
            "memory_growth_mib_after_the_first_third": round(growth, 1),
        }


def load(url: str, process: int | None, clients: int, seconds: float, steps: int) -> dict[str, Any]:
    """Run the clients and return the report.

    Args:
        url: address of a studio.
        process: id of its process, to watch its memory; None if that is elsewhere.
        clients: how many at once.
        seconds: for how long they ask.
        steps: of each picture.
    """
    report, until = Report(), time.monotonic() + seconds
    threads = [threading.Thread(target=Client(k, url, steps, report).run, args=(until,)) for k in range(clients)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if process is not None:
            report.memory.append((time.monotonic() - start, memory_mib(process)))
        time.sleep(0.5)
    return report.summary()


def memory_mib(process: int) -> float:
    """Memory a process holds."""
    return int(Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def _at(values: list[float], fraction: float) -> float | None:
    return round(values[min(len(values) - 1, int(fraction * len(values)))], 2) if values else None


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--url", help="a studio that runs already; it must be on this machine")
    options = parser.parse_args()
    if options.url:
        report = load(options.url, None, options.clients, 60 * options.minutes, options.steps)
    else:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-u", "-m", "instancediffusion", "studio", "-o", folder, "--port", "0"]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                line = server.stdout.readline() if server.stdout else ""
                report = load(line.split()[1], server.pid, options.clients, 60 * options.minutes, options.steps)
            finally:
                server.send_signal(signal.SIGINT)
                server.wait(30)
    print(json.dumps(report, indent=2))
    return int(
        bool(report["faults"]) or not report["pictures"] or report["memory_growth_mib_after_the_first_third"] > 100
    )


if __name__ == "__main__":
    sys.exit(main())
