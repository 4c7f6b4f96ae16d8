"""The pipeline's network by OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instancediffusion.adapter.backbones import core_network
from instancediffusion.adapter.openvino import OpenVINOCall
from instancediffusion.errors import SettingsError
from instancediffusion.scene import Scene


class OpenVINOMixin:
    """Turns the computing of the network by OpenVINO on and off."""

    unet: Any

    def enable_openvino(
        self,
        device: str = "CPU",
        ov_config: Mapping[str, Any] | None = None,
        *,
        precision: str | None = None,
        calibration: Scene | Sequence[Scene] | None = None,
    ) -> None:
        """Let OpenVINO compute the network, the adapter's layers included; all other components stay with torch.

        The first call of each kind (with instances and without, of another canvas) takes long: it is exported and
        compiled. Copies, saved folders and `unet.compile()` are without it.

        With `precision="int8"` linear layers and convolutions multiply 8-bit numbers, and all else is bfloat16 where
        the device has it. Torch makes a few pictures first, to see what goes through the layers; what it saw is kept
        in the cache folder and read again for the same weights. Weights that change afterwards are computed without
        8-bit numbers, and a warning says so, until this is called again.

        Args:
            device: as OpenVINO names it: "CPU", "GPU", "AUTO". The pipeline itself stays on the processor.
            ov_config: OpenVINO's properties, such as `{"INFERENCE_PRECISION_HINT": "bf16"}`; see `OpenVINOCall`.
            precision: "float32", "bfloat16", "float16" or "int8"; None is the type of the network's weights.
            calibration: a scene, or several, to measure "int8" on; None are a few of one to eight common objects.

        Raises:
            ModelError: OpenVINO is not installed, or int8 is measured and finds numbers that are not finite.
            SettingsError: it has no such device here, or no such precision; scenes without "int8", or none; an
                IP-Adapter with "int8".
        """
        if calibration is not None and precision != "int8":
            raise SettingsError("calibration: these scenes are for precision='int8' alone")
        calibration = [calibration] if isinstance(calibration, Scene) else calibration
        if calibration is not None and not calibration:
            raise SettingsError("calibration: there is no scene; leave it out for those that are built in")
        for number, scene in enumerate(calibration or ()):
            if not isinstance(scene, Scene):
                raise SettingsError(f"calibration[{number}]: expected a Scene, got a {type(scene).__name__}")
        network = core_network(self.unet)
        call = OpenVINOCall(network, device, ov_config, precision)
        before = network._compiled_call_impl
        network._compiled_call_impl = call
        if precision == "int8":
            from instancediffusion.pipeline.calibration import calibrate

            try:
                calibrate(self, call, calibration)
            except BaseException:
                network._compiled_call_impl = before
                raise

    def disable_openvino(self) -> None:
        """Let torch compute the network again."""
        if OpenVINOCall.of(self.unet) is not None:
            core_network(self.unet)._compiled_call_impl = None
