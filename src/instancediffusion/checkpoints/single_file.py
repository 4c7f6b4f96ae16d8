"""A Stable Diffusion 1.x, 2.x or XL model in one file (`.safetensors`, `.ckpt`) -> components of diffusers.

Tensors are renamed by diffusers' own converters. Sizes are read off the tensors, so no configuration has to be fetched;
what no tensor shows (attention heads, the kind of prediction) follows the family, or a folder of configurations.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import diffusers
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.loaders import single_file_utils as ldm
from torch import Tensor, nn

from instancediffusion.checkpoints.contents import UNET, VAE, WeightsFile, open_weights
from instancediffusion.checkpoints.published import default_heads, fill, numbers, official_scheduler
from instancediffusion.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

Family = Literal["sd1", "sd2", "sdxl"]
Heads = int | Sequence[int]
Tensors = Mapping[str, Tensor]

CLIP = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.")
_HEAD_CHANNELS = 64  # of Stable Diffusion 2.x and XL, and of every CLIP text model
_SCALE_FACTORS = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
_SIZES_PX = {"sd1": 512, "sd2": 768, "sdxl": 1024}
_STEP_OF_SD2_BASE = 875_000
_TIME_IDS = 6  # original size, crop, target size


@dataclass(frozen=True)
class SingleFileComponents:
    """What a file holds; tokenizers are not in such files.

    Attributes:
        family: Stable Diffusion 1.x, 2.x or XL.
        unet: the UNet.
        vae: the autoencoder.
        text_encoder: a CLIP text model.
        text_encoder_2: the second of XL, with its projection; None in the other families.
        scheduler: one of the family's noise schedule.
    """

    family: Family
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection | None
    scheduler: Any

    def modules(self) -> dict[str, nn.Module]:
        """The networks by the names of their components."""
        named = {
            "unet": self.unet,
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
        }
        return {name: module for name, module in named.items() if module is not None}


def load_single_file(
    path: str | Path,
    *,
    config: str | Path | None = None,
    num_heads: Heads | None = None,
    text_heads: int | None = None,
    prediction_type: str | None = None,
) -> SingleFileComponents:
    """Load a whole model from one file.

    Args:
        path: the file.
        config: folder of a pipeline of the same shape, whose configurations are used in place of what is read off the
            tensors (its weights are not).
        num_heads: attention heads of the UNet, one number or one for each level; None follows the family: 8 in 1.x (see
            `default_heads`), heads of 64 channels in 2.x and XL.
        text_heads: attention heads of the text encoders; None means heads of 64 channels.
        prediction_type: `"epsilon"` or `"v_prediction"`; None means v-prediction for 2.x (but for the 2.0 base,
            recognised by its step) and for files that say so (`v_pred`), and else epsilon. Other 2.x models of
            512 pixels predict epsilon, which no tensor shows: name it for those.

    Raises:
        CheckpointError: it is no such file, or tensors are missing, surplus or of the wrong shape.
    """
    file = open_weights(path).expect("single_file")
    tensors = file.tensors
    family = _family(file)
    configs = None if config is None else Path(config)
    try:
        unet = _unet(path, tensors, family, configs, num_heads)
        vae = _vae(path, tensors, family, configs)
        first, second = _text_encoders(path, tensors, family, configs, text_heads)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: it is {file.what}, but not a whole one (missing or odd: {error})") from None
    if prediction_type not in (None, "epsilon", "v_prediction"):
        raise CheckpointError(f"prediction_type: {prediction_type!r} is not epsilon or v_prediction")
    scheduler = _scheduler(file, family, configs, prediction_type)
    return SingleFileComponents(family, unet.eval(), vae.eval(), first, second, scheduler)


def _family(file: WeightsFile) -> Family:
    """The family by its text encoders."""
    names = file.tensors
    if any(name.startswith("conditioner.embedders.") for name in names):
        return "sdxl"
    if any(name.startswith("cond_stage_model.model.") for name in names):
        return "sd2"
    if any(name.startswith("cond_stage_model.") for name in names):
        return "sd1"
    raise CheckpointError(f"{file.path}: it holds a UNet but no text encoder; get the whole model, or convert a folder")


def _unet(
    path: str | Path, tensors: Tensors, family: Family, configs: Path | None, num_heads: Heads | None
) -> UNet2DConditionModel:
    inner = {name.removeprefix(UNET): value for name, value in tensors.items() if name.startswith(UNET)}
    config = _unet_config(inner, family, tensors, num_heads)
    if configs is not None:
        config = dict(UNet2DConditionModel.load_config(configs / "unet"))
    with init_empty_weights(include_buffers=False):
        unet: UNet2DConditionModel = UNet2DConditionModel.from_config(config)
    fill(path, "UNet", unet, ldm.convert_ldm_unet_checkpoint(dict(tensors), config))
    return unet


def _unet_config(inner: Tensors, family: Family, tensors: Tensors, num_heads: Heads | None) -> dict[str, Any]:
    """The configuration that the shapes of a UNet imply."""
    downsampled = [n for n in _found(r"input_blocks\.(\d+)\.0\.op\.", inner)]
    blocks = [n for n in _found(r"input_blocks\.(\d+)\.0\.in_layers\.", inner)]
    per_level = (min(downsampled) if downsampled else max(blocks) + 1) - 1
    first = [n for n in range(1, max(blocks) + 1, per_level + 1)]
    depths = [len(set(_found(rf"input_blocks\.{n}\.1\.transformer_blocks\.(\d+)\.", inner))) for n in first]
    channels = [inner[f"input_blocks.{n}.0.out_layers.3.weight"].shape[0] for n in first]
    linear = any(name.endswith("proj_in.weight") and value.dim() == 2 for name, value in inner.items())
    context = next((v.shape[1] for name, v in inner.items() if name.endswith("attn2.to_k.weight")), None)
    if context is None:
        raise KeyError("attn2.to_k.weight")
    if num_heads is None:
        num_heads = [max(1, c // _HEAD_CHANNELS) for c in channels] if linear else default_heads(channels[0])
    middle = len(set(_found(r"middle_block\.1\.transformer_blocks\.(\d+)\.", inner)))
    config: dict[str, Any] = {
        "sample_size": _SIZES_PX[family] // 8,
        "in_channels": inner["input_blocks.0.0.weight"].shape[1],
        "out_channels": inner["out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": per_level,
        "cross_attention_dim": context,
        "attention_head_dim": num_heads if isinstance(num_heads, int) else list(num_heads),
        "norm_num_groups": _groups(channels),
        "use_linear_projection": linear,
        "transformer_layers_per_block": [depth or middle or 1 for depth in depths],
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
    }
    if "label_emb.0.0.weight" in inner:
        added = inner["label_emb.0.0.weight"].shape[1]
        config |= {
            "addition_embed_type": "text_time",
            "projection_class_embeddings_input_dim": added,
            "addition_time_embed_dim": (added - _projection(tensors)) // _TIME_IDS,
        }
    return config


def _groups(channels: Sequence[int]) -> int:
    """Groups of the normalisation, which no tensor shows: 32, or fewer where that does not divide the channels."""
    return math.gcd(32, *channels)


def _projection(tensors: Tensors) -> int:
    """Width of the projected text that goes with the time embedding of XL."""
    return int(tensors[OPEN_CLIP[1] + "text_projection"].shape[1])


def _vae(path: str | Path, tensors: Tensors, family: Family, configs: Path | None) -> AutoencoderKL:
    inner = {name.removeprefix(VAE): value for name, value in tensors.items() if name.startswith(VAE)}
    if not inner:
        raise CheckpointError(f"{path}: it holds no autoencoder; get the whole model, or pass vae=")
    levels = max(numbers(r"encoder\.down\.(\d+)\.", inner)) + 1
    channels = [inner[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
    config: dict[str, Any] = {
        "in_channels": inner["encoder.conv_in.weight"].shape[1],
        "out_channels": inner["decoder.conv_out.weight"].shape[0],
        "latent_channels": inner["post_quant_conv.weight"].shape[1],
        "block_out_channels": channels,
        "norm_num_groups": _groups(channels),
        "layers_per_block": max(numbers(r"encoder\.down\.0\.block\.(\d+)\.", inner)) + 1,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "sample_size": _SIZES_PX[family],
        "scaling_factor": _SCALE_FACTORS[family],
        "force_upcast": family == "sdxl",
    }
    if configs is not None:
        config = dict(AutoencoderKL.load_config(configs / "vae"))
    with init_empty_weights(include_buffers=False):
        vae: AutoencoderKL = AutoencoderKL.from_config(config)
    renamed = ldm.convert_ldm_vae_checkpoint({VAE + name: value for name, value in inner.items()}, config)
    # Training left these beside the weights.
    fill(path, "autoencoder", vae, {name: value for name, value in renamed.items() if not name.startswith("loss.")})
    return vae


def _text_encoders(
    path: str | Path, tensors: Tensors, family: Family, configs: Path | None, heads: int | None
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection | None]:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    if family == "sd2":
        return _open_clip(path, tensors, OPEN_CLIP[0], CLIPTextModel, configs, "text_encoder", heads), None
    first = _clip(path, tensors, CLIP[0] if family == "sd1" else CLIP[1], configs, heads)
    if family == "sd1":
        return first, None
    kind = CLIPTextModelWithProjection
    return first, _open_clip(path, tensors, OPEN_CLIP[1], kind, configs, "text_encoder_2", heads)


def _clip(path: str | Path, tensors: Tensors, prefix: str, configs: Path | None, heads: int | None) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    held = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    # Files of early 2023 lack this level of the names.
    plain = {name.removeprefix("text_model."): v for name, v in held.items() if not name.endswith("position_ids")}
    config = _text_config(
        width=plain["embeddings.token_embedding.weight"].shape,
        positions=plain["embeddings.position_embedding.weight"].shape[0],
        inner=plain["encoder.layers.0.mlp.fc1.weight"].shape[0],
        layers=max(numbers(r"encoder\.layers\.(\d+)\.", plain)) + 1,
        heads=heads,
        hidden_act="quick_gelu",
    )
    if configs is not None:
        config = CLIPTextConfig.from_pretrained(configs / "text_encoder")
    with init_empty_weights(include_buffers=False):
        model = CLIPTextModel(config)
    fill(path, "text encoder", model, _levelled(model, plain))
    return model.eval()


def _open_clip(
    path: str | Path,
    tensors: Tensors,
    prefix: str,
    kind: Any,
    configs: Path | None,
    name: str,
    heads: int | None,
) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    held = {key: value for key, value in tensors.items() if key.startswith(prefix)}
    blocks = rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\."
    layers = max(numbers(blocks, held)) + 1
    if kind is CLIPTextModel:
        # Stable Diffusion 2 reads the last layer but one, so diffusers leaves the last out.
        layers -= 1
        last = f"{prefix}transformer.resblocks.{layers}."
        held = {key: value for key, value in held.items() if not key.startswith(last) and "text_projection" not in key}
    config = _text_config(
        width=held[prefix + "token_embedding.weight"].shape,
        positions=held[prefix + "positional_embedding"].shape[0],
        inner=held[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        layers=layers,
        heads=heads,
        hidden_act="gelu",
        projection_dim=held[prefix + "text_projection"].shape[1] if prefix + "text_projection" in held else None,
    )
    if configs is not None:
        config = CLIPTextConfig.from_pretrained(configs / name)
    with init_empty_weights(include_buffers=False):
        model = kind(config)
    renamed = ldm.convert_open_clip_checkpoint(model, held, prefix=prefix)
    plain = {key.removeprefix("text_model."): value for key, value in renamed.items()}
    fill(path, name.replace("_", " "), model, _levelled(model, plain))
    return model.eval()


def _text_config(
    *,
    width: Sequence[int],
    positions: int,
    inner: int,
    layers: int,
    heads: int | None,
    hidden_act: str,
    projection_dim: int | None = None,
) -> CLIPTextConfig:
    from transformers import CLIPTextConfig

    vocabulary, channels = width
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=channels,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads or (channels // _HEAD_CHANNELS if channels >= 2 * _HEAD_CHANNELS else 4),
        max_position_embeddings=positions,
        hidden_act=hidden_act,
        projection_dim=projection_dim or channels,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )


def _levelled(model: nn.Module, plain: Tensors) -> dict[str, Tensor]:
    """Text model tensors with or without the level `text_model.`, as this version of transformers names them."""
    level = "text_model." if any(name.startswith("text_model.") for name in model.state_dict()) else ""
    return {name if name.startswith("text_projection") else level + name: value for name, value in plain.items()}


def _scheduler(file: WeightsFile, family: Family, configs: Path | None, prediction_type: str | None) -> Any:
    if configs is not None and prediction_type is None and (configs / "scheduler").is_dir():
        return _scheduler_of(configs)
    if prediction_type is None:
        base_of_512_px = file.content.get("global_step") == _STEP_OF_SD2_BASE
        said = "v_pred" in file.tensors or (family == "sd2" and not base_of_512_px)
        prediction_type = "v_prediction" if said else "epsilon"
    if family == "sd1" and prediction_type == "epsilon":
        return official_scheduler()
    shared: dict[str, Any] = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "prediction_type": prediction_type,
        "rescale_betas_zero_snr": "ztsnr" in file.tensors,
    }
    if family == "sdxl":
        return EulerDiscreteScheduler(timestep_spacing="leading", **shared)
    return DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **shared)


def _scheduler_of(configs: Path) -> Any:
    """The scheduler that a folder of configurations names."""
    name = json.loads((configs / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))["_class_name"]
    return getattr(diffusers, name).from_pretrained(configs / "scheduler")


def _found(pattern: str, tensors: Tensors) -> list[int]:
    """What `numbers` finds, or nothing."""
    try:
        return numbers(pattern, tensors)
    except KeyError:
        return []
