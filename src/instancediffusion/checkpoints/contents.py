"""What a file of weights is, recognised by its first bytes and the names of its tensors before it is parsed."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from instancediffusion.checkpoints.unpickle import read_checkpoint
from instancediffusion.errors import CheckpointError

Kind = Literal["published", "spliced", "adapter", "single_file", "other"]
"""Published: all of InstanceDiffusion in one file. Spliced: one of the three files cut out of it for ComfyUI. Adapter:
an `InstanceAdapter`. Single file: a Stable Diffusion 1.x, 2.x or XL model under the names of its training code."""

Container = Literal["safetensors", "zip", "legacy"]

_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that old `torch.save` writes first
_ZIP_START = b"PK\x03\x04"
_MOST_HEADER = 100 << 20  # bytes; what safetensors itself admits
# First bytes of what people take for weights, and what to do about it.
_STRANGERS = (
    (b"version https://git-lfs", "a pointer of Git LFS in place of the file; run `git lfs pull`"),
    (b"GGUF", "a GGUF file (quantised); get the .safetensors of the model"),
    (b"<", "a web page or XML; open the address and download the file itself"),
    (b"{", "JSON text; give the file of the weights"),
    (b"\x89HDF", "an HDF5 file (Keras); get the .safetensors of the model"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)
UNET = "model.diffusion_model."
VAE = "first_stage_model."
# Other things, recognised by parts of the names of their tensors: (all of these parts, what it is, what to do with it).
# A whole model holds an autoencoder and a text model, too, so those count only where there is no UNet.
_KNOWN: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("lora_",), "a LoRA", "load it on a pipeline with load_lora_weights, or --lora"),
    ((".lora.",), "a LoRA", "load it on a pipeline with load_lora_weights, or --lora"),
    (("hada_w1",), "a LoHa", "load it on a pipeline with load_lora_weights, or --lora"),
    (("lokr_w",), "a LoKr", "load it on a pipeline with load_lora_weights, or --lora"),
    (("control_model.",), "a ControlNet", "it goes beside a model, as controlnet="),
    (("controlnet_cond_embedding.",), "a ControlNet", "it goes beside a model, as controlnet="),
    (("ip_adapter.",), "an IP-Adapter", "load it on a pipeline with load_ip_adapter"),
    (("image_proj.", "to_k_ip"), "an IP-Adapter", "load it on a pipeline with load_ip_adapter"),
    (("string_to_param",), "a textual inversion", "load it on a pipeline with load_textual_inversion"),
    (("emb_params",), "a textual inversion", "load it on a pipeline with load_textual_inversion"),
    (("motion_modules.",), "a motion module of AnimateDiff", "it draws no single pictures"),
    (("joint_blocks.",), "Stable Diffusion 3", ""),
    (("double_blocks.", "single_blocks."), "FLUX", ""),
    (("double_layers.", "cond_seq_linear"), "AuraFlow", ""),
    (("distilled_guidance_layer.",), "Chroma", ""),
    (("clip_txt_mapper.",), "Stable Cascade", ""),
    (("conditioner.embedders.0.model.",), "the refiner of SDXL", "use it as --refiner"),
)
_PARTS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("down_blocks.", "conv_in."), "a UNet in the layout of diffusers", "give the folder of its whole pipeline"),
    (("transformer_blocks.", "proj_out"), "a diffusion transformer", ""),
    (("decoder.mid",), "an autoencoder", "pass it to a pipeline as vae="),
    (("text_model.encoder.",), "a CLIP text model", "pass it to a pipeline as text_encoder="),
)
_SPLICED = re.compile(
    r"(?:input_blocks|middle_block|output_blocks)\.\d+\.(?:.*\.)?(?:alpha_attn|alpha_dense)|"
    r"\d+\.scaleu_[bs]|scaleu_[bs]_\d+|(?:position_net\.)?null_positive_feature"
)


class SafeTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Open `path`; nothing but its header is read."""
        self._file: Any = safe_open(path, "pt")
        self._names = dict.fromkeys(list(self._file.keys()))

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of that name, on the CPU."""
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of the file."""
        return iter(self._names)

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self._names)


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights that has been recognised.

    Attributes:
        path: where it is.
        kind: what it is for us.
        what: what it is, in words.
        advice: what to do with it where `kind` is `"other"`; may be empty.
        content: what it holds: tensors by name, maybe in groups, and whatever else a checkpoint carries.
        tensors: its tensors by their full names, groups joined by dots.
    """

    path: Path
    kind: Kind
    what: str
    advice: str
    content: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def expect(self, *kinds: Kind) -> WeightsFile:
        """This file, if it is of one of these kinds.

        Raises:
            CheckpointError: it is another; the message says which, and what it is used for.
        """
        if self.kind in kinds:
            return self
        raise CheckpointError(f"{self.path}: it is {self.what}" + (f"; {self.advice}" if self.advice else ""))


def container(path: str | Path) -> Container:
    """The format of a file of weights, by its first bytes and its length.

    Raises:
        CheckpointError: no such file, a file cut short, or something else; the message says what it looks like.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: it is a folder; give a file in it")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the path of a downloaded checkpoint")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        length = int.from_bytes(start[:8], "little")
        if len(start) > 8 and start[8:9] == b"{" and 2 <= length <= _MOST_HEADER:
            header = file.seek(8) and file.read(length)
            _check_length(path, header or b"", length, size)
            return "safetensors"
    if not start:
        raise CheckpointError(f"{path}: the file is empty; download it again")
    if start.startswith(_LEGACY_START):
        return "legacy"
    if start.startswith(_ZIP_START):
        if not zipfile.is_zipfile(path):  # the table of contents stands at the end
            raise CheckpointError(f"{path}: not a PyTorch checkpoint: cut short; was the download interrupted?")
        return "zip"
    for first, what in _STRANGERS:
        if start.lstrip().startswith(first):
            raise CheckpointError(f"{path}: not a PyTorch checkpoint but {what}")
    if start[:1] == b"\x80":
        raise CheckpointError(f"{path}: not a PyTorch checkpoint but a bare pickle, which could run anything")
    raise CheckpointError(
        f"{path}: not a PyTorch checkpoint and not safetensors; was the download interrupted, or another file taken?"
    )


def open_weights(path: str | Path) -> WeightsFile:
    """Open a file of weights, safely, and say what it is.

    Args:
        path: a `.safetensors`, or a checkpoint of PyTorch (`.ckpt`, `.pth`, `.pt`) under whatever name.

    Raises:
        CheckpointError: see `container`; or it asks for more than tensors and plain containers (see `read_checkpoint`),
            or holds no tensors.
    """
    path = Path(path)
    content: Mapping[str, Any]
    if container(path) == "safetensors":
        try:
            content = SafeTensors(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not readable as safetensors ({error})") from None
    else:
        content = read_checkpoint(path)
    inner: Any = content
    while isinstance(inner.get("state_dict"), Mapping):  # what the training code of Stable Diffusion wraps it in
        inner = inner["state_dict"]
    tensors = inner if isinstance(inner, SafeTensors) else dict(_flat(inner))
    if not tensors:
        raise CheckpointError(f"{path}: it holds no tensors; found {', '.join(map(str, content)) or 'nothing'}")
    kind, what, advice = _recognise(content, tensors)
    return WeightsFile(path, kind, what, advice, content, tensors)


def _recognise(content: Mapping[str, Any], names: Mapping[str, Tensor]) -> tuple[Kind, str, str]:
    """(kind, what it is in words, what to do with it)."""
    if isinstance(content.get("autoencoder"), Mapping) or isinstance(content.get("model"), Mapping):
        return "published", "a checkpoint in the published layout of InstanceDiffusion", ""
    if any(name.startswith("unifusion.") for name in names) and any(name.startswith("layers.") for name in names):
        return "adapter", "an InstanceAdapter", "give its folder, with config.json"
    if not any(name.startswith(UNET) for name in names) and any(_SPLICED.fullmatch(name) for name in names):
        return "spliced", "one of the three files that ComfyUI cuts out of the published checkpoint", ""
    single_file = any(name.startswith(f"{UNET}input_blocks.") for name in names)
    for parts, what, advice in _KNOWN if single_file else _KNOWN + _PARTS:
        if all(any(part in name for name in names) for part in parts):
            return "other", what, advice or "InstanceDiffusion goes on the UNets of Stable Diffusion 1.x, 2.x and XL"
    if single_file:
        return "single_file", "a Stable Diffusion model in one file", ""
    first = ", ".join(sorted(names)[:3])
    return "other", f"of no kind that is known here (its tensors begin with {first})", ""


def _check_length(path: Path, header: bytes, length: int, size: int) -> None:
    """Refuse a safetensors file that is shorter than its header says."""
    try:
        stated: dict[str, Any] = json.loads(header) if len(header) == length else {"": None}
        ends = [entry["data_offsets"][1] for name, entry in stated.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError):
        raise CheckpointError(f"{path}: the header of this safetensors file is damaged; download it again") from None
    if size < whole:
        raise CheckpointError(
            f"{path}: it has {size} of {whole} bytes; the download was interrupted, or is still going on"
        )


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested mappings by names joined with dots."""
    for name, value in tree.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
