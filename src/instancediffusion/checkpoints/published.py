"""The published checkpoint -> a stock UNet with our adapter on it, an autoencoder and a text encoder."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints.contents import open_weights
from instancediffusion.checkpoints.tensor_names import unet_name, vae_name
from instancediffusion.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import CLIPTextModel

Tensors = Mapping[str, Tensor]
SCALE_FACTOR = 0.18215
ADAPTER = "adapter/"
"""What `unet_name` puts before the tensors of the adapter."""
NET = "position_net."
"""What the published checkpoint puts before the tensors of the tokenizer."""
_STRIDE = 32  # of the mask encoder


@dataclass(frozen=True)
class OfficialComponents:
    """What a published checkpoint holds; `adapter` is grafted on `unet`."""

    unet: UNet2DConditionModel
    adapter: InstanceAdapter
    vae: AutoencoderKL
    text_encoder: CLIPTextModel

    @property
    def scheduler(self) -> PNDMScheduler:
        """The published schedule and sampler."""
        return official_scheduler()

    def modules(self) -> dict[str, Any]:
        """The networks by the names of their components."""
        return {"unet": self.unet, "adapter": self.adapter, "vae": self.vae, "text_encoder": self.text_encoder}


def load_official(
    path: str | Path, *, num_heads: int | None = None, text_heads: int | None = None, base: Path | None = None
) -> OfficialComponents:
    """Load a checkpoint in the published layout; every size is read off its tensors.

    Args:
        path: the `.pth` file. Its EMA weights (`ema`) are taken where it has them, else `model`.
        num_heads: attention heads of the UNet, which no tensor shows; None takes the published 8, or fewer in a UNet
            so narrow that a head would have less than 8 channels.
        text_heads: attention heads of the text encoder; None means heads of 64 channels as in every CLIP text
            model, or those of the UNet where that would leave a single one.
        base: folder of the base model; the heads that its `config.json` files state are taken where nothing is given
            and the widths agree.

    Raises:
        CheckpointError: the file cannot be read safely, a group is missing, or tensors are missing, surplus
            or of the wrong shape.
    """
    checkpoint = open_weights(path).expect("published").content
    tensors = _unet_group(path, checkpoint)
    width = _width(path, tensors)
    heads = num_heads or _stated(base, "unet", "attention_head_dim", "block_out_channels", width)
    heads = heads or default_heads(width)
    unet, adapter = _unet_and_adapter(path, tensors, heads)
    vae = _vae(path, _group(path, checkpoint, "autoencoder"))
    text_encoder = _text_encoder(path, _group(path, checkpoint, "text_encoder"), heads, text_heads, base)
    adapter.graft(unet)
    return OfficialComponents(unet.eval(), adapter.eval(), vae.eval(), text_encoder.eval())


def load_official_adapter(path: str | Path, *, num_heads: int | None = None) -> InstanceAdapter:
    """The adapter of a checkpoint in the published layout, for use on another model; see `load_official`."""
    tensors = _unet_group(path, open_weights(path).expect("published").content)
    heads = num_heads or default_heads(_width(path, tensors))
    return _unet_and_adapter(path, tensors, heads, adapter_only=True)[1].eval()


def default_heads(channels: int) -> int:
    """Attention heads of a Stable Diffusion 1.x UNet whose first level has `channels` channels.

    8 as published; half as many, and again, while a head would have less than 8 channels or a fraction of one.
    """
    heads = 8
    while heads > 1 and (channels % heads or channels < 8 * heads):
        heads //= 2
    return heads


def official_scheduler() -> PNDMScheduler:
    """The published schedule and sampler: 1000 training steps, PLMS with offset 1."""
    return PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
    )


def _group(path: str | Path, checkpoint: Mapping[str, Any], name: str) -> Tensors:
    group = checkpoint.get(name)
    if not isinstance(group, Mapping) or not group:
        raise CheckpointError(f"{path}: no group {name!r}; found {', '.join(map(str, checkpoint)) or 'nothing'}")
    odd = next((key for key, value in group.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        raise CheckpointError(f"{path}: {name}: {odd!r} is not a tensor")
    return group


def _unet_group(path: str | Path, checkpoint: Mapping[str, Any]) -> Tensors:
    return _group(path, checkpoint, "ema" if "ema" in checkpoint else "model")


def _stated(base: Path | None, part: str, key: str, width_key: str, width: int) -> int | None:
    """A number that the configuration of a base model states, if it is as wide at its first level."""
    path = None if base is None else base / part / "config.json"
    if path is None or not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    stated, value = config.get(width_key), config.get(key)
    first = stated[0] if isinstance(stated, list) and stated else stated
    return value if first == width and isinstance(value, int) else None


def _width(path: str | Path, tensors: Tensors) -> int:
    """Channels of the first level."""
    try:
        return int(tensors["input_blocks.0.0.weight"].shape[0])
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: not the published layout of the UNet ({error})") from None


def _unet_and_adapter(
    path: str | Path, tensors: Tensors, num_heads: int, *, adapter_only: bool = False
) -> tuple[UNet2DConditionModel, InstanceAdapter]:
    try:
        blocks_per_level = min(int(n) for n in numbers(r"input_blocks\.(\d+)\.0\.op\.", tensors)) - 1
        config = _unet_config(tensors, blocks_per_level, num_heads)
        config_of_adapter = adapter_config({name: tensors[name] for name in tensors if name.startswith(NET)})
        renamed = {unet_name(name, blocks_per_level): value for name, value in tensors.items()}
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not the published layout of the UNet ({error})") from None
    with init_empty_weights(include_buffers=False):
        unet = UNet2DConditionModel(**config)
        adapter = InstanceAdapter.for_unet(unet, **config_of_adapter)
    if not adapter_only:
        fill(path, "UNet", unet, {name: value for name, value in renamed.items() if not name.startswith(ADAPTER)})
    fill_adapter(path, adapter, renamed)
    return unet, adapter


def fill_adapter(path: str | Path, adapter: InstanceAdapter, renamed: Tensors) -> None:
    """Fill an adapter with tensors that `unet_name` named; others than the adapter's are left out.

    Raises:
        CheckpointError: tensors are missing, surplus or of the wrong shape.
    """
    ours = {name.removeprefix(ADAPTER): value for name, value in renamed.items() if name.startswith(ADAPTER)}
    # The order of instances is ours: the published model has none, which a zero embedding says.
    order = adapter.unifusion.z_order
    dtype = next(iter(ours.values())).dtype if ours else torch.float32
    ours["unifusion.z_order.weight"] = torch.zeros(order.weight.shape, dtype=dtype)
    fill(path, "adapter", adapter, ours)


def _unet_config(tensors: Tensors, blocks_per_level: int, num_heads: int) -> dict[str, Any]:
    step = blocks_per_level + 1
    last = max(numbers(r"input_blocks\.(\d+)\.0\.in_layers\.", tensors))
    levels = (last - 1) // step + 1
    first = [level * step + 1 for level in range(levels)]
    attended = [f"input_blocks.{n}.1.norm.weight" in tensors for n in first]
    context = next(v.shape[1] for k, v in tensors.items() if k.endswith("attn2.to_k.weight"))
    return {
        "sample_size": 64,
        "in_channels": tensors["input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors["out.2.weight"].shape[0],
        "block_out_channels": tuple(tensors[f"input_blocks.{n}.0.out_layers.3.weight"].shape[0] for n in first),
        "layers_per_block": blocks_per_level,
        "cross_attention_dim": context,
        # The library's name for the number of heads in this family.
        "attention_head_dim": num_heads,
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)),
    }


def adapter_config(tensors: Tensors) -> dict[str, Any]:
    """The configuration of the adapter whose tokenizer has these tensors (`position_net.*`), without its layers.

    Raises:
        KeyError, ValueError: one that is needed is missing, or has too few dimensions.
    """
    net = NET
    frequencies = tensors[net + "null_position_feature"].shape[0] // (2 * 4)
    channels = tensors[net + "in_conv.weight"].shape[1]
    stage = r"position_net\.convnext_tiny_backbone\.stages\.(\d+)\.{}"
    stages = max(numbers(stage.format(r"0\.gamma"), tensors)) + 1
    widths = [tensors[f"{net}convnext_tiny_backbone.stages.{i}.0.gamma"].shape[0] for i in range(stages)]
    depths = [
        max(numbers(rf"position_net\.convnext_tiny_backbone\.stages\.{i}\.(\d+)\.gamma", tensors)) + 1
        for i in range(stages)
    ]
    _, tokens, features = tensors[net + "pos_embedding"].shape
    return {
        "token_dim": tensors[net + "linears_list.0.4.weight"].shape[0],
        "caption_dim": tensors[net + "null_positive_feature"].shape[0],
        "hidden_dim": tensors[net + "linears_list.0.0.weight"].shape[0],
        "slots": channels,
        "frequencies": frequencies,
        "scribble_points": tensors[net + "null_scribble_feature"].shape[0] // (4 * frequencies),
        "mask_points": tensors[net + "null_polygon_feature"].shape[0] // (4 * frequencies),
        "segmentation": {
            "channels": channels,
            "size": _STRIDE * math.isqrt(tokens * features // widths[-1]),
            "tokens": tokens,
            "widths": widths,
            "depths": depths,
        },
        # Its training practically never saw a mask or scribble without box and point.
        "derive_locations": True,
        "published_mask_points": True,
        "default_instance_mask": "none",
    }


def _vae(path: str | Path, tensors: Tensors) -> AutoencoderKL:
    try:
        levels = max(numbers(r"encoder\.down\.(\d+)\.", tensors)) + 1
        config = {
            "in_channels": tensors["encoder.conv_in.weight"].shape[1],
            "out_channels": tensors["decoder.conv_out.weight"].shape[0],
            "latent_channels": tensors["post_quant_conv.weight"].shape[1],
            "block_out_channels": tuple(
                tensors[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)
            ),
            "layers_per_block": max(numbers(r"encoder\.down\.0\.block\.(\d+)\.", tensors)) + 1,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "sample_size": 512,
            "scaling_factor": SCALE_FACTOR,
        }
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not the published layout of the autoencoder ({error})") from None
    renamed = {}
    for name, value in tensors.items():
        ours = vae_name(name, levels)
        # 1x1 convolutions of the attention are linear layers in diffusers.
        renamed[ours] = value.flatten(1) if "attentions" in ours and value.dim() == 4 else value
    with init_empty_weights(include_buffers=False):
        vae = AutoencoderKL(**config)
    fill(path, "autoencoder", vae, renamed)
    return vae


def _text_encoder(
    path: str | Path, tensors: Tensors, num_heads: int, text_heads: int | None, base: Path | None
) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel  # half a second, which those who load no such file save

    prefix = "transformer.text_model."
    plain = {k.removeprefix(prefix): v for k, v in tensors.items() if not k.endswith("position_ids")}
    try:
        vocabulary, width = plain["embeddings.token_embedding.weight"].shape
        text_heads = text_heads or _stated(base, "text_encoder", "num_attention_heads", "hidden_size", width)
        config = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=plain["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=max(numbers(r"encoder\.layers\.(\d+)\.", plain)) + 1,
            num_attention_heads=text_heads or (width // 64 if width >= 2 * 64 else num_heads),
            max_position_embeddings=plain["embeddings.position_embedding.weight"].shape[0],
            hidden_act="quick_gelu",
            projection_dim=width,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not the published layout of the text encoder ({error})") from None
    model = CLIPTextModel(config)
    # transformers 5 dropped the `text_model.` level from the names of this class.
    level = "text_model." if any(name.startswith("text_model.") for name in model.state_dict()) else ""
    fill(path, "text encoder", model, {level + name: value for name, value in plain.items()})
    return model


def fill(path: str | Path, what: str, module: nn.Module, tensors: Tensors) -> None:
    """Strict loading with one message for all that does not fit.

    Raises:
        CheckpointError: tensors are missing, surplus or of the wrong shape; the first is named.
    """
    expected = {name: value.shape for name, value in module.state_dict().items() if not name.endswith("position_ids")}
    missing = sorted(set(expected) - set(tensors))
    surplus = sorted(set(tensors) - set(expected))
    reshaped = [name for name in expected if name in tensors and tensors[name].shape != expected[name]]
    for problem, names in (("missing", missing), ("unknown", surplus), ("of the wrong shape", reshaped)):
        if names:
            raise CheckpointError(f"{path}: {what}: {len(names)} tensors are {problem}, the first is {names[0]}")
    # Copies: the tensors of the file are views of its memory map.
    module.load_state_dict({name: value.clone() for name, value in tensors.items()}, strict=False, assign=True)


def numbers(pattern: str, tensors: Tensors) -> list[int]:
    """What the first group of a regular expression finds at the start of the names of tensors.

    Raises:
        KeyError: it matches none.
    """
    found = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    if not found:
        raise KeyError(pattern)
    return found
