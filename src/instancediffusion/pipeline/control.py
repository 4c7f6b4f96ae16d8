"""ControlNets and T2I-Adapters: pictures that steer the structure of the whole picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import ControlNetModel, MultiAdapter, MultiControlNetModel, T2IAdapter
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor
from torch.nn import functional

from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.pipeline.framing import BoxUnit
from instancediffusion.pipeline.given import as_list
from instancediffusion.pipeline.requests import ImageRequest

_PICTURES = VaeImageProcessor(do_convert_rgb=True, do_normalize=False)


@dataclass(frozen=True)
class ControlPicture:
    """A network with a picture for each image of the run.

    Attributes:
        model: a `ControlNetModel` or `T2IAdapter`.
        pictures: for each image (C, H, W), 0 to 1.
        scale: weight.
        start: fraction of the steps before it acts.
        end: fraction of the steps after which it does not act any more.
    """

    model: Any
    pictures: Sequence[Tensor]
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def acts(self, step: int, steps: int) -> bool:
        """Whether it acts in a step."""
        return self.scale != 0 and step / steps >= self.start and (step + 1) / steps <= self.end

    def shown(self, images: Sequence[int], frames: Sequence[BoxUnit], size: tuple[int, int]) -> Tensor:
        """The control image of each batch element, (R, C, *size).

        Args:
            images: for each batch element, the image of the run.
            frames: for each batch element, its part of the canvas.
            size: in the network's pixels.
        """
        rows = []
        for image, (x0, y0, x1, y1) in zip(images, frames, strict=True):
            picture = self.pictures[image]
            height, width = picture.shape[-2:]
            part = picture[:, round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]
            rows.append(functional.interpolate(part[None].float(), size=size, mode="bilinear"))
        return torch.cat(rows).to(self.model.device, self.model.dtype)


@dataclass(frozen=True)
class Control:
    """All of them.

    Attributes:
        nets: ControlNets.
        adapters: T2I-Adapters.
        steps: of the run.
    """

    nets: Sequence[ControlPicture] = ()
    adapters: Sequence[ControlPicture] = ()
    steps: int = 1

    def __bool__(self) -> bool:
        return bool(self.nets or self.adapters)

    def bind(self, images: Sequence[int], frames: Sequence[BoxUnit]) -> BoundControl:
        """For batch elements that step together; see `ControlPicture.shown`."""
        return BoundControl(self, tuple(images), tuple(frames))


@dataclass
class BoundControl:
    """Control of a fixed batch; what does not depend on the step is computed once."""

    control: Control
    images: tuple[int, ...]
    frames: tuple[BoxUnit, ...]
    _shown: dict[Any, Any] = field(default_factory=dict)

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        step: int,
        context: Tensor,
        lengths: Sequence[int],
        extras: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Further arguments of the UNet for this step.

        Args:
            sample: (R, C, h, w) the UNet's input.
            timestep: 0-dim.
            step: the step that is made, from 0.
            context: (R, L, D) texts.
            lengths: of each batch element's text; what is beyond is not attended to.
            extras: other arguments of the UNet.
        """
        control, size = self.control, (sample.shape[-2], sample.shape[-1])
        inputs: dict[str, Any] = {}
        down: list[Tensor] = []
        middle: Tensor | None = None
        for k, net in enumerate(control.nets):
            if not net.acts(step, control.steps):
                continue
            if k not in self._shown:
                levels = 2 ** (len(net.model.config.conditioning_embedding_out_channels) - 1)
                self._shown[k] = net.shown(self.images, self.frames, (size[0] * levels, size[1] * levels))
            found, centre = _residuals(net, self._shown[k], sample, timestep, context, lengths, extras)
            down = [a + b for a, b in zip(down, found, strict=True)] if down else found
            middle = centre if middle is None else middle + centre
        if down:
            inputs["down_block_additional_residuals"] = tuple(down)
            inputs["mid_block_additional_residual"] = middle
        features = self._features(size, sample, step)
        if features:
            inputs["down_intrablock_additional_residuals"] = [value.clone() for value in features]
        return inputs

    def _features(self, size: tuple[int, int], sample: Tensor, step: int) -> list[Tensor]:
        features: list[Tensor] = []
        for k, net in enumerate(self.control.adapters):
            if not net.acts(step, self.control.steps):
                continue
            if ("adapter", k) not in self._shown:
                factor = int(net.model.config.downscale_factor)
                shown = net.shown(self.images, self.frames, (size[0] * factor, size[1] * factor))
                self._shown["adapter", k] = [net.scale * value.to(sample) for value in net.model(shown)]
            own = self._shown["adapter", k]
            features = [a + b for a, b in zip(features, own, strict=True)] if features else own
        return features


def _residuals(
    net: ControlPicture,
    shown: Tensor,
    sample: Tensor,
    timestep: Tensor,
    context: Tensor,
    lengths: Sequence[int],
    extras: Mapping[str, Any],
) -> tuple[list[Tensor], Tensor]:
    """Residuals of a ControlNet, which masks no padding of texts: the batch is split by the lengths of texts."""
    model = net.model
    down: list[Tensor] = []
    middle: Tensor | None = None
    for length in dict.fromkeys(lengths):
        rows = [row for row, own in enumerate(lengths) if own == length]
        given: dict[str, Any] = {}
        if extras.get("timestep_cond") is not None:
            given["timestep_cond"] = extras["timestep_cond"][rows].to(model.dtype)
        added = {k: v for k, v in (extras.get("added_cond_kwargs") or {}).items() if k in ("text_embeds", "time_ids")}
        if added:
            given["added_cond_kwargs"] = {name: value[rows].to(model.dtype) for name, value in added.items()}
        found, centre = model(
            sample[rows, : model.config.in_channels].to(model.dtype),
            timestep,
            encoder_hidden_states=context[rows, :length].to(model.dtype),
            controlnet_cond=shown[rows],
            conditioning_scale=net.scale,
            return_dict=False,
            **given,
        )
        if middle is None:
            down = [value.new_zeros(len(lengths), *value.shape[1:], dtype=sample.dtype) for value in found]
            middle = centre.new_zeros(len(lengths), *centre.shape[1:], dtype=sample.dtype)
        for whole, value in zip([*down, middle], [*found, centre], strict=True):
            whole[rows] = value.to(sample.dtype)
    assert middle is not None
    return down, middle


def read_control(
    pipeline: Any,
    *,
    controlnet: Any,
    control_image: Any,
    controlnet_scale: float | Sequence[float],
    start: float | Sequence[float],
    end: float | Sequence[float],
    t2i_adapter: Any,
    t2i_adapter_image: Any,
    t2i_adapter_scale: float | Sequence[float],
    requests: Sequence[ImageRequest],
    scenes: int,
) -> Control:
    """The control of a call; the arguments are those of `InstanceDiffusionPipeline.__call__`.

    Raises:
        SettingsError: a network without picture, a picture without network, or a number out of range.
        ModelError: a network does not fit the UNet.
    """
    nets = _models(controlnet, "controlnet", ControlNetModel, MultiControlNetModel, "nets")
    adapters = _models(t2i_adapter, "t2i_adapter", T2IAdapter, MultiAdapter, "adapters")
    width = pipeline.backbone.context_dim(pipeline.unet)
    channels = list(pipeline.unet.config.get("block_out_channels") or ())
    for net in nets:
        taken = int(net.config.cross_attention_dim)
        if taken != width:
            raise ModelError(f"controlnet: it is for texts of {taken} channels, and this model's have {width}")
        own = list(net.config.block_out_channels)
        if own != channels:
            raise ModelError(
                f"controlnet: its blocks have channels {own}, the model's {channels}; take one made for this model"
            )
    starts, ends = (
        _numbers(start, "control_guidance_start", len(nets)),
        _numbers(end, "control_guidance_end", len(nets)),
    )
    for first, last in zip(starts, ends, strict=True):
        if not 0 <= first < last <= 1:
            raise SettingsError(
                f"control_guidance_start: {first} to {last} is no part of 0 to 1; it ends after it starts"
            )
    control_scales = _numbers(controlnet_scale, "controlnet_conditioning_scale", len(nets))
    shown = _shown(nets, control_image, "control_image", "controlnet", requests, scenes)
    adapter_scales = _numbers(t2i_adapter_scale, "t2i_adapter_conditioning_scale", len(adapters))
    adapted = _shown(adapters, t2i_adapter_image, "t2i_adapter_image", "t2i_adapter", requests, scenes)
    for model in (*nets, *adapters):
        model.to(pipeline._execution_device)
    return Control(
        [ControlPicture(*values) for values in zip(nets, shown, control_scales, starts, ends, strict=True)],
        [ControlPicture(*values) for values in zip(adapters, adapted, adapter_scales, strict=True)],
    )


def _models(given: Any, name: str, kind: type, several: type, inner: str) -> list[Any]:
    if given is None:
        return []
    models = list(getattr(given, inner)) if isinstance(given, several) else given
    models = list(models) if isinstance(models, Sequence) else [models]
    for model in models:
        if not isinstance(model, kind):
            wanted = f"{kind.__name__}.from_pretrained(...)"
            raise SettingsError(f"{name}: it is {type(model).__name__}; give a {wanted}, or a list of them")
    return models


def _numbers(given: float | Sequence[float], name: str, count: int) -> list[float]:
    values = list(given) if isinstance(given, Sequence) else [given] * count
    if len(values) != count or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise SettingsError(f"{name}: {given!r} is not a number, or a list of {count}")
    return [float(value) for value in values]


def _shown(
    models: Sequence[Any], images: Any, name: str, owner: str, requests: Sequence[ImageRequest], scenes: int
) -> list[list[Tensor]]:
    """For each network, a picture for each image."""
    if not models:
        if images is not None:
            raise SettingsError(f"{name}: there is no {owner}; give {owner}=, too")
        return []
    if images is None:
        raise SettingsError(f"{name}: {owner} needs a picture; give {name}=")
    each = [images] if len(models) == 1 else images
    if not isinstance(each, list | tuple) or len(each) != len(models):
        raise SettingsError(f"{name}: there are {len(models)} of {owner}; give a list of as many pictures")
    found = []
    for model, own in zip(models, each, strict=True):
        rows = as_list(own, name, len(requests), scenes)
        grey = model.config.get("conditioning_channels", model.config.get("in_channels")) == 1
        found.append([_picture(row, name, r.size, grey) for row, r in zip(rows, requests, strict=True)])
    return found


def _picture(image: Any, name: str, size: tuple[int, int], grey: bool) -> Tensor:
    try:
        batch: Tensor = _PICTURES.preprocess(image, height=size[0], width=size[1])
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise SettingsError(f"{name}: {str(error).splitlines()[0] or type(image).__name__}; give a picture") from error
    return batch[0].mean(0, keepdim=True) if grey else batch[0]
