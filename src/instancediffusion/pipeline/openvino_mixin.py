"""The pipeline's network by OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instancediffusion.adapter.backbones import core_network
from instancediffusion.adapter.openvino import OpenVINOCall


class OpenVINOMixin:
    """Turns the computing of the network by OpenVINO on and off."""

    unet: Any

    def enable_openvino(self, device: str = "CPU", ov_config: Mapping[str, Any] | None = None) -> None:
        """Let OpenVINO compute the network, the adapter's layers included; all other components stay with torch.

        The first call of each kind (with instances and without, of another canvas) takes long: it is exported and
        compiled. Copies, saved folders and `unet.compile()` are without it.

        Args:
            device: as OpenVINO names it: "CPU", "GPU", "AUTO". The pipeline itself stays on the processor.
            ov_config: OpenVINO's properties, such as `{"INFERENCE_PRECISION_HINT": "bf16"}`; see `OpenVINOCall`.

        Raises:
            ModelError: OpenVINO is not installed.
            SettingsError: it has no such device here.
        """
        network = core_network(self.unet)
        network._compiled_call_impl = OpenVINOCall(network, device, ov_config)

    def disable_openvino(self) -> None:
        """Let torch compute the network again."""
        if OpenVINOCall.of(self.unet) is not None:
            core_network(self.unet)._compiled_call_impl = None
