"""The facts `doctor` reports, as plain values."""

import json
import os
import platform
import re
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from instancediffusion import __version__
from instancediffusion.errors import ModelError
from instancediffusion.runs import cache_folder

SD15_COST = 1.45
"""One UNet call of `sd15` (64x64 latent, float32) takes as long as 1.45e12 operations of this machine's matrix product:
5.9 s were measured where that product ran at 246 GFLOP/s."""
_OPTIONAL = ("world", "studio")
"""Extras whose packages a user may want at run time."""


def diagnose() -> dict[str, Any]:
    """Look at this machine; takes about a second, most of it for importing torch and timing a few matrix products.

    Returns:
        JSON-like values: `ok`, `version`, `python`, `platform`, `packages`, `devices`, `threads`, `models`, `notes`.
    """
    installed = packages()
    ok = all(package["ok"] for package in installed.values())
    found_devices = devices() if installed["torch"]["version"] else []
    found_models = models() if ok else {}
    return {
        "ok": ok and bool(found_models["mini"]["place"]),
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": installed,
        "devices": found_devices,
        "models": found_models,
        "notes": notes(found_devices),
    }


def packages() -> dict[str, dict[str, Any]]:
    """Compare the installed packages with what this one declares."""
    found: dict[str, dict[str, Any]] = {}
    for line in metadata.requires("instancediffusion") or []:
        requirement = Requirement(line)
        extra = next((name for name in _OPTIONAL if _only_for(requirement, name)), None)
        if requirement.marker is not None and extra is None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version: str | None = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        fits = version is not None and requirement.specifier.contains(version, prereleases=True)
        found[requirement.name] = {
            "version": version,
            "needs": str(requirement.specifier),
            "extra": extra,
            "ok": fits or (version is None and extra is not None),
        }
    return found


def devices() -> list[dict[str, Any]]:
    """List the devices torch can use, the processor first, with the speed of a matrix product in each number format."""
    import torch

    threads = torch.get_num_threads()
    found = [
        {
            "name": "cpu",
            "description": f"{threads} of {os.cpu_count()} threads",
            "memory_gib": _memory_gib(),
            "gflops": {"float32": _gflops("cpu", torch.float32), "bfloat16": _gflops("cpu", torch.bfloat16)},
        }
    ]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        formats = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_bf16_supported()
        found.append(
            {
                "name": f"cuda:{index}",
                "description": properties.name,
                "memory_gib": properties.total_memory / 2**30,
                "gflops": {str(dtype).removeprefix("torch."): _gflops(f"cuda:{index}", dtype) for dtype in formats},
            }
        )
    if torch.backends.mps.is_available():
        found.append(
            {
                "name": "mps",
                "description": "Apple GPU",
                "memory_gib": None,
                "gflops": {"float32": _gflops("mps", torch.float32), "float16": _gflops("mps", torch.float16)},
            }
        )
    return found


def models() -> dict[str, dict[str, Any]]:
    """Tell for each named model where it is, how large, and the hash of its weights; nothing is downloaded."""
    from instancediffusion.checkpoints import CARDS, mini_folder, weights_sha256
    from instancediffusion.checkpoints.index import INDEX

    found = {}
    for name, card in CARDS.items():
        missing = "not at hand; downloaded and converted on first use"
        if card.adapter is None:
            try:
                folder: Path | None = mini_folder()
            except ModelError as error:
                folder, missing = None, str(error)
        else:
            folder = cache_folder() / name
            if not (folder / INDEX).is_file():
                folder = None
                if cached := _in_hub_cache(card.adapter.repository, card.adapter.file, card.adapter.revision):
                    missing = f"downloaded ({cached}), converted on first use"
        files = [] if folder is None else [path for path in folder.rglob("*") if path.is_file()]
        found[name] = {
            "summary": card.summary,
            "licence": card.licence,
            "place": None if folder is None else str(folder),
            "missing": None if folder is not None else missing,
            "mib": sum(path.stat().st_size for path in files) / 2**20,
            "sha256": None if folder is None else weights_sha256(folder),
        }
    return found


def notes(devices: list[dict[str, Any]]) -> list[str]:
    """Say what would be slow here and what to do about it."""
    if not devices:
        return []
    said = []
    best = max(speed for device in devices for speed in device["gflops"].values())
    cpu = devices[0]
    single = cpu["gflops"]["float32"]
    seconds = SD15_COST * 1000 / single
    if len(devices) == 1:
        said.append(
            f"no GPU: `mini` runs in seconds; `sd15` takes about {seconds:.0f} s for each UNet call in float32, "
            f"that is {seconds * 50 / 60:.0f} min for a picture of 25 steps with guidance"
        )
    else:
        said.append(f"fastest number format found: {best:,.0f} GFLOP/s; pass --device and --dtype to use it")
    if cpu["gflops"]["bfloat16"] > 1.5 * single:
        ratio = cpu["gflops"]["bfloat16"] / single
        said.append(f"matrix products run {ratio:.1f} times as fast in bfloat16: --dtype bfloat16 is worth a try")
    elif cpu["gflops"]["bfloat16"] < 0.8 * single:
        said.append("bfloat16 is slower than float32 on this processor: keep --dtype float32")
    if os.environ.get("OMP_NUM_THREADS"):
        said.append(f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} limits the threads")
    if cpu["memory_gib"] and cpu["memory_gib"] < 12 and len(devices) == 1:
        said.append("`sd15` needs about 6 GiB free in float32; use --dtype bfloat16")
    return said


def _only_for(requirement: Requirement, extra: str) -> bool:
    marker = str(requirement.marker or "")
    return re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker) is not None


def _gflops(device: str, dtype: Any, side: int = 768, seconds: float = 0.15) -> float:
    """Time square matrix products: 10^9 multiply-or-add operations a second."""
    import torch

    a = torch.ones(side, side, device=device, dtype=dtype)
    sync = torch.cuda.synchronize if device.startswith("cuda") else torch.mps.synchronize if device == "mps" else None
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline or best == float("inf"):
        start = time.perf_counter()
        product = a @ a
        if sync is not None:
            sync()
        best = min(best, time.perf_counter() - start)
        del product
    return 2 * side**3 / best / 1e9


def _memory_gib() -> float | None:
    """Read the machine's memory where the system reports it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None


def _in_hub_cache(repository: str, file: str | None, revision: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, file or "model_index.json", revision=revision)
    return path if isinstance(path, str) else None


def mini_vocabulary() -> dict[str, list[str]]:
    """Everything `mini` has names for: `objects`, `colours`, `backgrounds`, and all `words` if it knows no others."""
    from instancediffusion.checkpoints import model_folder, read_index

    folder = model_folder("mini")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    index = read_index(folder)
    names = {kind: card[kind] for kind in ("objects", "colours", "backgrounds")}
    return {**names, "words": index["vocabulary"]} if index.get("vocabulary") else names
