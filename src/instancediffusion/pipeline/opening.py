"""Opening a model where it is to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from instancediffusion.choices import openvino_precision
from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.pipeline import InstanceDiffusionPipeline

if TYPE_CHECKING:
    from instancediffusion.additions import Additions


def open_pipeline(
    folder: Path,
    adapter: Path | None = None,
    dtype: str = "float32",
    device: str | None = None,
    variant: str | None = None,
    *,
    additions: Additions | None = None,
    bars: bool = True,
) -> InstanceDiffusionPipeline:
    """Load a model onto a device.

    Args:
        folder: of the model; see `local_model`.
        adapter: one that takes the place of the model's own.
        dtype: name of a torch type.
        device: None is the fastest there is; "openvino" is the processor, with the network computed by OpenVINO, and
            "openvino:GPU" another device of OpenVINO's for that. A precision may follow: "openvino:int8",
            "openvino:GPU:int8".
        variant: of the weights; see `choose_variant`.
        additions: what is put into the model, before OpenVINO measures it.
        bars: show progress.

    Raises:
        SettingsError: the device cannot be used here.
        ModelError: there is no such model, an addition cannot be loaded, or OpenVINO is to compute it and is not
            installed.
    """
    target, by_openvino = device or fastest_device(), None
    if target.partition(":")[0] == "openvino":
        target, by_openvino = "cpu", target
    given: dict[str, Any] = {"adapter": adapter, "variant": variant}
    given = {name: value for name, value in given.items() if value is not None}
    pipeline = InstanceDiffusionPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype), **given)
    pipeline.set_progress_bar_config(**({} if bars else {"disable": True}))
    try:
        pipeline.to(target)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that is not there
        raise SettingsError(f"device: {target!r} cannot be used here ({str(error).splitlines()[0]})") from error
    if additions is not None:
        additions.load(pipeline)
    if by_openvino is not None:
        pipeline.enable_openvino(_openvino_device(by_openvino), precision=openvino_precision(by_openvino))
    return pipeline  # type: ignore[no-any-return, unused-ignore]


def _openvino_device(device: str) -> str:
    """What OpenVINO calls it: "GPU" of "openvino:GPU:int8"."""
    _, *parts = device.split(":")
    return ":".join(parts[: len(parts) - (openvino_precision(device) is not None)]) or "CPU"


def fastest_device() -> str:
    """Name the fastest device there is."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def open_quietly(folder: Path, *where: Any, **options: Any) -> InstanceDiffusionPipeline:
    """Load a model as `open_pipeline` does, without progress bars."""
    return open_pipeline(folder, *where, **options, bars=False)
