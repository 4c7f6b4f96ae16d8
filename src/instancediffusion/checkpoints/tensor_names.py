"""Names of the published checkpoint -> names of diffusers and of our adapter, for any number of levels."""

from __future__ import annotations

import re
from collections.abc import Callable

from instancediffusion.scene import KINDS

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_MIDDLE = {"0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"}
_NULLS = {"position": "box", "point": "point", "scribble": "scribble", "polygon": "mask"}
_FUSER = {"attn.to_out.0.": "to_out.", "attn.": ""}
_CONVNEXT = {"dwconv": "depthwise", "pwconv1": "expand", "pwconv2": "contract", "gamma": "layer_scale", "norm": "norm"}


def unet_name(name: str, blocks_per_level: int) -> str:
    """Where a tensor of the published UNet belongs.

    Args:
        name: its name in the file.
        blocks_per_level: residual blocks of an encoder level (2 in the published model).

    Returns:
        Its name in the stock UNet, or `adapter/` and its name in `InstanceAdapter`.

    Raises:
        KeyError: no such tensor in the published model.
    """
    if name.startswith("scaleu_"):
        _, part, step = name.split("_")
        return f"adapter/scaleu.{step}.{part}"
    if name.startswith("position_net."):
        return "adapter/unifusion." + _unifusion_name(name.removeprefix("position_net."))
    for old, new in _ENDS.items():
        if name.startswith(old + "."):
            return new + name[len(old) :]
    if name.startswith("middle_block."):
        _, part, rest = name.split(".", 2)
        return _inside(_MIDDLE[part], rest)
    side, number, part, rest = name.split(".", 3)
    steps = blocks_per_level + 1
    if side == "input_blocks":
        level, position = divmod(int(number) - 1, steps)
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        kind = "resnets" if part == "0" else "attentions"
        return _inside(f"down_blocks.{level}.{kind}.{position}", rest)
    if side == "output_blocks":
        level, position = divmod(int(number), steps)
        if rest.startswith("conv."):
            return f"up_blocks.{level}.upsamplers.0.{rest}"
        kind = "resnets" if part == "0" else "attentions"
        return _inside(f"up_blocks.{level}.{kind}.{position}", rest)
    raise KeyError(name)


def _inside(prefix: str, rest: str) -> str:
    """A tensor inside a residual block or a spatial transformer."""
    for old, new in _RESNET.items():
        if rest.startswith(old + "."):
            return f"{prefix}.{new}{rest[len(old) :]}"
    block, fuser, tail = rest.partition(".fuser.")
    if not fuser:
        return f"{prefix}.{rest}"
    for old, new in _FUSER.items():
        if tail.startswith(old):
            tail = new + tail[len(old) :]
            break
    return f"adapter/layers.{prefix}.{block}".replace(".", "-").replace("layers-", "layers.", 1) + f".{tail}"


def _unifusion_name(name: str) -> str:
    simple = {
        "pos_embedding": "mask_encoder.position",
        "null_seg_feature": "mask_encoder.null_feature",
        "null_positive_feature": "null_caption",
        "in_conv.weight": "mask_encoder.merge.weight",
        "in_conv.bias": "mask_encoder.merge.bias",
    }
    if name in simple:
        return simple[name]
    if null := re.fullmatch(r"null_(\w+)_feature", name):
        return f"null_locations.{_NULLS[null[1]]}"
    if mlp := re.fullmatch(r"linears_list\.(\d)\.(.+)", name):
        index = int(mlp[1])
        return f"mlps.{KINDS[index]}.{mlp[2]}" if index < len(KINDS) else f"segmentation_mlp.{mlp[2]}"
    if down := re.fullmatch(r"convnext_tiny_backbone\.downsample_layers\.(.+)", name):
        return f"mask_encoder.downsamplers.{down[1]}"
    if block := re.fullmatch(r"convnext_tiny_backbone\.stages\.(\d+\.\d+)\.(\w+)(.*)", name):
        return f"mask_encoder.stages.{block[1]}.{_CONVNEXT[block[2]]}{block[3]}"
    raise KeyError(name)


def vae_name(name: str, levels: int) -> str:
    """Where a tensor of the published autoencoder belongs in `AutoencoderKL` with that many levels."""
    rules: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"\.norm_out\.", ".conv_norm_out."),
        (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
        (r"\.down\.(\d+)\.downsample\.conv", r".down_blocks.\1.downsamplers.0.conv"),
        (r"\.up\.(\d+)\.block\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.resnets."),
        (r"\.up\.(\d+)\.upsample\.conv", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.upsamplers.0.conv"),
        (r"\.mid\.block_([12])\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}."),
        (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
        (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
        (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
    ]
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
