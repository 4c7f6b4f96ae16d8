"""The adapter in three files, as cut out of the published checkpoint for ComfyUI: fusers, positionnet and scaleu.

`fusers` holds, by part of the UNet and number of the block, the gated layer's tensors (`state`) and its sizes
(`params`); `positionnet` the tokenizer's tensors; `scaleu` those of ScaleU by decoder step. They are distinguished by
what they hold, not by their names, and nested or joined with dots alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import Tensor

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints.contents import WeightsFile, open_weights
from instancediffusion.checkpoints.published import NET, adapter_config, default_heads, fill_adapter
from instancediffusion.checkpoints.tensor_names import unet_name
from instancediffusion.errors import CheckpointError

_FUSER = re.compile(
    r"(?P<side>input_blocks|middle_block|output_blocks)\.(?P<block>\d+)\.(?:.*\.)?"
    r"(?P<rest>(?:alpha_attn|alpha_dense|linear|norm1|norm2|attn|ff)(?:\..+)?)"
)
_SCALEU = re.compile(r"(?P<step>\d+)\.scaleu_(?P<part>[bs])|scaleu_(?P<part2>[bs])_(?P<step2>\d+)")
_PARTS = ("fusers", "positionnet", "scaleu")


def load_spliced(paths: Iterable[str | Path], *, num_heads: int | None = None) -> InstanceAdapter:
    """The adapter of the three files.

    Args:
        paths: the files, in any order and under any names.
        num_heads: attention heads of the UNet; None takes those that the fusers state, or see `load_official`.

    Raises:
        CheckpointError: one of the three is missing or there twice, is not what it should be, or holds too little.
    """
    files = [open_weights(path).expect("spliced") for path in paths]
    parts: dict[str, tuple[WeightsFile, dict[str, Tensor]]] = {}
    for file in files:
        for part, tensors in _parts(file):
            if part in parts:
                raise CheckpointError(f"{file.path}: it holds the {part}, and so does {parts[part][0].path}")
            parts[part] = file, tensors
    missing = [part for part in _PARTS if part not in parts]
    where = ", ".join(str(file.path) for file in files) or "no file"
    if missing:
        raise CheckpointError(f"{where}: the {' and the '.join(missing)} are missing; give all three files together")
    fusers = parts["fusers"][1]
    tensors = {name: value for _, held in parts.values() for name, value in held.items()}
    per_level = _blocks_per_level(where, fusers)
    try:
        config = adapter_config(parts["positionnet"][1])
        renamed = {unet_name(name, per_level): value for name, value in tensors.items()}
        steps = parts["scaleu"][1]
        channels = [steps[f"scaleu_b_{step}"].shape[0] for step in range(len(steps) // 2)]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{where}: not the layout of the three spliced files ({error})") from None
    heads = num_heads or _stated_heads(parts["fusers"][0].content)
    shapes = {}
    for name, value in fusers.items():
        if name.endswith("fuser.linear.weight"):
            width = value.shape[0]
            layer = unet_name(name, per_level).removeprefix("adapter/layers.").removesuffix(".linear.weight")
            shapes[_path(layer)] = (width, heads or default_heads(min(v.shape[0] for v in _linears(fusers))))
    with init_empty_weights(include_buffers=False):
        adapter = InstanceAdapter(layer_shapes=shapes, scaleu_channels=channels, **config)
    fill_adapter(where, adapter, renamed)
    return adapter.eval()


def _parts(file: WeightsFile) -> list[tuple[str, dict[str, Tensor]]]:
    """What of the three a file holds, under the published names."""
    found: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, value in file.tensors.items():
        if fuser := _FUSER.fullmatch(name):
            inner = "1" if fuser["side"] != "middle_block" else ""
            block = ".".join(filter(None, (fuser["side"], fuser["block"], inner)))
            found["fusers"][f"{block}.transformer_blocks.0.fuser.{fuser['rest']}"] = value
        elif scaleu := _SCALEU.fullmatch(name):
            step, part = scaleu["step"] or scaleu["step2"], scaleu["part"] or scaleu["part2"]
            found["scaleu"][f"scaleu_{part}_{step}"] = value
        else:
            found["positionnet"][NET + name.removeprefix(NET)] = value
    return [(part, tensors) for part, tensors in found.items() if tensors]


def _linears(fusers: Mapping[str, Tensor]) -> Sequence[Tensor]:
    return [value for name, value in fusers.items() if name.endswith("fuser.linear.weight")]


def _blocks_per_level(where: str, fusers: Mapping[str, Tensor]) -> int:
    """Residual blocks of an encoder level: as many transformers as stand in a row before the first downsampler."""
    blocks = {int(name.split(".")[1]) for name in fusers if name.startswith("input_blocks.")}
    if 1 not in blocks:
        raise CheckpointError(f"{where}: the fusers hold none for input block 1; it is not the published layout")
    count = 1
    while count + 1 in blocks:
        count += 1
    return count


def _stated_heads(content: Mapping[str, Any]) -> int | None:
    """The attention heads that the fusers' `params` state."""
    for value in content.values():
        if isinstance(value, Mapping):
            if isinstance(heads := value.get("n_heads"), int):
                return heads
            if (inner := _stated_heads(value)) is not None:
                return inner
    return None


def _path(key: str) -> str:
    """The path in the UNet of a layer's name in the adapter, which has dashes for dots."""
    return key.replace("-", ".")
