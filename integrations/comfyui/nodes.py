"""The nodes as ComfyUI wants them: classes with INPUT_TYPES, RETURN_TYPES, FUNCTION and CATEGORY.

IMAGE is a float tensor (B, height, width, 3) in 0..1, MASK (B, height, width) in 0..1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from instancediffusion.presets import PRESETS
from instancediffusion.settings import SETTINGS

from . import layout

PIPELINE, SCENE = "INSTANCEDIFFUSION_PIPELINE", "INSTANCEDIFFUSION_SCENE"
CATEGORY = "InstanceDiffusion"
_MAX_SIDE = 8192
_OWN = "the model's own"


class LoadPipeline:
    """Loads a model: mini, sd15, a folder or a hub id."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Loads a pipeline: mini (comes with the package), sd15, a folder in diffusers' layout, or a hub id."
    FUNCTION = "load"
    RETURN_TYPES = (PIPELINE,)
    RETURN_NAMES = ("pipeline",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The sockets and widgets."""
        return {
            "required": {
                "model": ("STRING", {"default": "mini"}),
                "dtype": (["float32", "bfloat16", "float16"],),
            },
            "optional": {"adapter": ("STRING", {"default": "", "tooltip": "Folder or hub id of an adapter."})},
        }

    def load(self, model: str, dtype: str, adapter: str = "") -> tuple[Any]:
        """Load it onto the device that ComfyUI works on."""
        from instancediffusion import InstanceDiffusionPipeline

        given = {"adapter": adapter.strip()} if adapter.strip() else {}
        pipeline = InstanceDiffusionPipeline.from_pretrained(
            model.strip(), torch_dtype=getattr(torch, dtype), **given
        ).to(_device())
        pipeline.set_progress_bar_config(disable=True)
        return (pipeline,)


class MakeScene:
    """Makes a scene of the core's bounding boxes, elements, masks or layers."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Makes a scene. Connect Create Bounding Boxes (bboxes, elements), masks (one for each object) or a stack of "
        "layers. Captions, one line for each object, go before what a socket says. With layers, z_index is the order."
    )
    FUNCTION = "make"
    RETURN_TYPES = (SCENE, "IMAGE", "STRING")
    RETURN_NAMES = ("scene", "overlay", "json")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The sockets and widgets."""
        side = {"default": 512, "min": 16, "max": _MAX_SIDE, "step": 8}
        return {
            "required": {
                "prompt": ("STRING", {"multiline": True, "default": ""}),
                "captions": ("STRING", {"multiline": True, "default": "", "tooltip": "One line for each object."}),
                "width": ("INT", dict(side)),
                "height": ("INT", dict(side)),
                "order": (list(layout.ORDERS), {"tooltip": "What the order of the list says, if no layer is stated."}),
            },
            "optional": {
                "negative_prompt": ("STRING", {"multiline": True, "default": ""}),
                "bboxes": ("BOUNDING_BOX", {"forceInput": True}),
                "elements": ("ARRAY", {"forceInput": True}),
                "masks": ("MASK",),
                "layers": ("LAYERS",),
            },
        }

    def make(
        self,
        prompt: str,
        captions: str,
        width: int,
        height: int,
        order: str,
        negative_prompt: str = "",
        bboxes: Any = None,
        elements: Any = None,
        masks: torch.Tensor | None = None,
        layers: Any = None,
    ) -> tuple[Any, torch.Tensor, str]:
        """Put the scene together, with its overlay (1, h, w, 3) and its text."""
        from instancediffusion.rendering import render_overlay
        from instancediffusion.scene import scene_text

        parts = layout.joined(
            layout.parts_of_boxes(bboxes),
            layout.parts_of_elements(elements, width, height),
            [] if masks is None else layout.parts_of_masks(_array(masks), width, height),
        )
        if layers is not None:
            parts += layout.parts_of_layers(_arrays(layers), width, height)
        lines = captions.strip().splitlines() if captions.strip() else []
        scene = layout.scene_of(prompt, parts, lines, width, height, order, negative_prompt)
        return scene, _image([render_overlay(scene)]), scene_text(scene)


class ReadScene:
    """Reads a scene from text in any format the package knows."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Reads a scene file's text: native, published, LabelMe, YOLO, boxes of a language model ..."
    FUNCTION = "read"
    RETURN_TYPES = (SCENE, "IMAGE", "BOUNDING_BOX")
    RETURN_NAMES = ("scene", "overlay", "bboxes")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The sockets and widgets."""
        return {"required": {"text": ("STRING", {"multiline": True, "default": ""})}}

    def read(self, text: str) -> tuple[Any, torch.Tensor, Any]:
        """Read it, draw its overlay, and give its boxes for the core's nodes."""
        from instancediffusion.rendering import render_overlay
        from instancediffusion.scene import scene_from_text

        scene = scene_from_text(text, source="text")
        return scene, _image([render_overlay(scene)]), layout.boxes_of(scene)


class Generate:
    """Generates images and masks of a scene."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Generates images of a scene, and one mask for each of its objects, where it was asked for."
    FUNCTION = "generate"
    RETURN_TYPES = ("IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("images", "masks", "captions")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The sockets and widgets."""
        return {
            "required": {
                "pipeline": (PIPELINE,),
                "scene": (SCENE,),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 64}),
                "steps": _widget("num_inference_steps", "INT", 1),
                "guidance_scale": _widget("guidance_scale", "FLOAT", 0.1),
                "visible_masks": (
                    "BOOLEAN",
                    {"default": True, "tooltip": "Leave out of the masks what nearer objects cover."},
                ),
            },
            "optional": {
                "settings": ("STRING", {"multiline": True, "default": "", "tooltip": "More settings, as JSON."}),
                "preset": ([_OWN, *PRESETS], {"tooltip": "Named settings; what is stated beside it wins over it."}),
            },
        }

    def generate(
        self,
        pipeline: Any,
        scene: Any,
        seed: int,
        batch_size: int,
        steps: int,
        guidance_scale: float,
        visible_masks: bool,
        settings: str = "",
        preset: str = _OWN,
    ) -> tuple[torch.Tensor, torch.Tensor, str]:
        """Make `batch_size` images (B, h, w, 3) of seeds counting up, and masks (N, h, w) of the N objects."""
        chosen = json.loads(settings) if settings.strip() else {}
        if not isinstance(chosen, dict):
            raise ValueError('settings: write a JSON object, such as {"mis_fraction": 0.4}')
        if preset != _OWN:
            chosen["preset"] = preset
        if steps:
            chosen["num_inference_steps"] = steps
        if guidance_scale:
            chosen["guidance_scale"] = guidance_scale
        count = chosen.get("num_inference_steps", pipeline.default_settings.num_inference_steps)
        output = pipeline(
            scene, seed=[seed + k for k in range(batch_size)], callback_on_step_end=_progress(count), **chosen
        )
        made = [image for image in output.images if image is not None]  # one that failed is named on the console
        images = _image(made)
        masks = layout.instance_masks(scene, (images.shape[1], images.shape[2]), visible=visible_masks)
        if not len(masks):  # a socket carries at least one mask
            masks = np.zeros((1, images.shape[1], images.shape[2]), dtype=np.float32)
        return images, torch.from_numpy(masks), "\n".join(instance.caption for instance in scene.instances)


def _widget(name: str, kind: str, step: float) -> tuple[str, dict[str, Any]]:
    """The widget of a number among the settings, which at 0 is the model's own."""
    setting = SETTINGS[name]
    return kind, {"default": 0, "min": 0, "max": setting.high, "step": step, "tooltip": f"{setting.help} 0 = {_OWN}."}


def _progress(steps: int) -> Callable[..., dict[str, Any]]:
    """A callback that moves ComfyUI's bar and stops when the user does; outside ComfyUI it does nothing."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ImportError:
        return lambda pipeline, step, timestep, tensors: {}  # noqa: ARG005
    bar = ProgressBar(steps)

    def progress(pipeline: Any, step: int, timestep: Any, tensors: Any) -> dict[str, Any]:  # noqa: ARG001
        throw_exception_if_processing_interrupted()
        bar.update_absolute(step + 1, pipeline.num_timesteps)  # a preset among the settings may change it
        return {}

    return progress


def _device() -> Any:
    """The device ComfyUI works on; outside ComfyUI the fastest there is."""
    try:
        from comfy.model_management import get_torch_device
    except ImportError:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return get_torch_device()


def _array(tensor: Any) -> Any:
    return tensor.detach().float().cpu().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)


def _arrays(value: Any) -> Any:
    """A stack of layers with arrays in place of tensors."""
    if isinstance(value, torch.Tensor):
        return _array(value)
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    return [_arrays(item) for item in value] if isinstance(value, list) else value


def _image(pictures: list[Any]) -> torch.Tensor:
    """Pictures of one size as an IMAGE."""
    arrays = [np.asarray(picture.convert("RGB"), dtype=np.float32) / 255 for picture in pictures]
    return torch.from_numpy(np.stack(arrays))


NODE_CLASS_MAPPINGS = {
    "InstanceDiffusionLoadPipeline": LoadPipeline,
    "InstanceDiffusionMakeScene": MakeScene,
    "InstanceDiffusionReadScene": ReadScene,
    "InstanceDiffusionGenerate": Generate,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "InstanceDiffusionLoadPipeline": "Load InstanceDiffusion Pipeline",
    "InstanceDiffusionMakeScene": "Make Scene (InstanceDiffusion)",
    "InstanceDiffusionReadScene": "Read Scene (InstanceDiffusion)",
    "InstanceDiffusionGenerate": "Generate (InstanceDiffusion)",
}
