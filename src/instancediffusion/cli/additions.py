"""What `generate` adds to a model and its scenes: LoRA files, control and reference pictures, edits, layers."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from instancediffusion.errors import ModelError, SettingsError

if TYPE_CHECKING:
    from instancediffusion.scene import Scene

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SHARE = click.FloatRange(0, 1)
_WEIGHTS = ".safetensors"

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Weighted:
    """A file or hub id with a weight."""

    source: str
    weight: float

    @classmethod
    def read(cls, text: str) -> Weighted:
        """Read PATH or PATH:WEIGHT; a path that is there as it stands has no weight."""
        head, colon, tail = text.rpartition(":")
        if colon and head and not Path(text).exists():
            try:
                return cls(head, float(tail))
            except ValueError:
                pass
        return cls(text, 1.0)


@dataclass(frozen=True)
class Additions:
    """Everything beside model, scenes and settings that decides the pictures of a command.

    Attributes:
        loras: LoRA files or hub ids with their weights.
        embeddings: textual inversions.
        ip_adapter: an IP-Adapter with its weight.
        controlnets: ControlNets with their weights.
        controls: a picture for each.
        image: a picture to go on from.
        mask: what of it is drawn anew.
        edit: a picture whose scene is replaced.
        redraw: instances (from 1) of the new scene that are drawn anew though nothing about them changed.
        layers: write the picture's layers, too.
    """

    loras: Sequence[Weighted] = ()
    embeddings: Sequence[str] = ()
    ip_adapter: Weighted | None = None
    controlnets: Sequence[Weighted] = ()
    controls: Sequence[Path] = ()
    image: Path | None = None
    mask: Path | None = None
    edit: Path | None = None
    redraw: Sequence[int] = ()
    layers: bool = False

    def check(self) -> None:
        """Raise `SettingsError` for what contradicts itself."""
        if len(self.controlnets) != len(self.controls):
            raise SettingsError(
                f"control: {len(self.controls)} pictures for {len(self.controlnets)} ControlNets; give a --control for "
                "each --controlnet"
            )
        if self.mask is not None and self.image is None:
            raise SettingsError("mask: there is no picture; add --image")
        for name, given in (("image", self.image), ("layers", self.layers or None)):
            if self.edit is not None and given is not None:
                raise SettingsError(f"{name}: it does not go with --edit; leave one of them out")
        if self.redraw and self.edit is None:
            raise SettingsError("redraw: there is no picture; add --edit")

    def facts(self) -> dict[str, Any]:
        """What of it decides pictures, for the manifest: files by name and hash, hub ids as they are."""
        told: dict[str, Any] = {}
        if self.loras:
            told["lora"] = [_fact(one) for one in self.loras]
        if self.embeddings:
            told["textual_inversion"] = [_fact(Weighted(one, 1.0)) for one in self.embeddings]
        if self.ip_adapter is not None:
            told["ip_adapter"] = _fact(self.ip_adapter)
        if self.controlnets:
            pictures = [{"file": path.name, "sha256": _sha256(path)} for path in self.controls]
            told["control"] = [
                _fact(net) | {"picture": own} for net, own in zip(self.controlnets, pictures, strict=True)
            ]
        for name, path in (("image", self.image), ("mask", self.mask), ("edit", self.edit)):
            if path is not None:
                told[name] = {"file": path.name, "sha256": _sha256(path)}
        if self.redraw:
            told["redraw"] = list(self.redraw)
        if self.layers:
            told["layers"] = True
        return told

    def load(self, pipeline: Any) -> None:
        """Load what belongs to the model.

        Raises:
            ModelError: something cannot be loaded.
        """
        names = []
        for number, lora in enumerate(self.loras):
            names.append(f"lora{number}")
            _try(lora.source, pipeline.load_lora_weights, *_place(lora.source), adapter_name=names[-1])
        if names:
            pipeline.set_adapters(names, [lora.weight for lora in self.loras])
        for source in self.embeddings:
            folder, weights = _place(source)
            _try(source, pipeline.load_textual_inversion, folder, **weights)
        if self.ip_adapter is not None:
            folder, weights = _place(self.ip_adapter.source)
            encoder = "image_encoder" if getattr(pipeline, "image_encoder", None) is None else None
            options: dict[str, Any] = {"weight_name": "ip-adapter_sd15.safetensors", "subfolder": "models", **weights}
            if weights:
                options |= {"subfolder": "", "image_encoder_folder": encoder}
            _try(self.ip_adapter.source, pipeline.load_ip_adapter, folder, **options)
            pipeline.set_ip_adapter_scale(self.ip_adapter.weight)

    def call(self, pipeline: Any) -> dict[str, Any]:
        """The arguments they are for a call of the pipeline."""
        options: dict[str, Any] = {"layers": True} if self.layers else {}
        if self.controlnets:
            from diffusers import ControlNetModel

            nets = [
                _try(net.source, ControlNetModel.from_pretrained, net.source, torch_dtype=pipeline.unet.dtype)
                for net in self.controlnets
            ]
            pictures = [_picture(path) for path in self.controls]
            options |= {"controlnet": nets, "control_image": pictures} if len(nets) > 1 else {}
            options |= {"controlnet": nets[0], "control_image": pictures[0]} if len(nets) == 1 else {}
            weights = [net.weight for net in self.controlnets]
            options["controlnet_conditioning_scale"] = weights if len(nets) > 1 else weights[0]
        if self.image is not None:
            options["image"] = _picture(self.image)
        if self.mask is not None:
            options["mask_image"] = _picture(self.mask).convert("L")
        return options

    def maker(self, pipeline: Any, settings: Any) -> Callable[[Sequence[Scene], Sequence[int]], Any]:
        """What makes the pictures of some scenes with some seeds."""
        options = self.call(pipeline)
        if self.edit is None:
            return lambda scenes, seeds: pipeline(list(scenes), seed=list(seeds), settings=settings, **options)
        redraw = [number - 1 for number in self.redraw]
        return lambda scenes, seeds: pipeline.edit(
            self.edit, scenes[0], seed=seeds[0], settings=settings, redraw=redraw, **options
        )


def additions_options(command: _Command) -> _Command:
    """Give a command the options of `Additions`, which it gets as `additions`."""
    options = [
        click.option("--lora", "loras", multiple=True, metavar="PATH[:WEIGHT]", help="LoRA file; repeatable."),
        click.option("--textual-inversion", "embeddings", multiple=True, help="Textual inversion file; repeatable."),
        click.option(
            "--ip-adapter", metavar="PATH[:WEIGHT]", help="IP-Adapter file, for reference pictures of scenes."
        ),
        click.option(
            "--controlnet", "controlnets", multiple=True, metavar="MODEL[:WEIGHT]", help="ControlNet; repeatable."
        ),
        click.option("--control", "controls", type=_FILE, multiple=True, help="Its picture; one for each ControlNet."),
        click.option("--image", type=_FILE, help="A picture to go on from."),
        click.option("--mask", type=_FILE, help="White where that is drawn anew; the rest stays."),
        click.option(
            "--strength", type=_SHARE, help="How much of the steps are made on it. Default: 0.8; 1 with a mask."
        ),
        click.option(
            "--edit", type=_FILE, help="A picture to change into SCENE; what is the same stays, to the pixel."
        ),
        click.option(
            "--redraw", type=click.IntRange(min=1), multiple=True, help="With --edit: also this object, from 1."
        ),
        click.option("--layers", is_flag=True, help="Also write a layer for each object: PNG files and OpenRaster."),
    ]

    @functools.wraps(command)
    def wrapped(*args: Any, loras: Any, embeddings: Any, ip_adapter: Any, controlnets: Any, **kwargs: Any) -> Any:
        fields = {name: kwargs.pop(name) for name in ("controls", "image", "mask", "edit", "redraw", "layers")}
        additions = Additions(
            loras=tuple(map(Weighted.read, loras)),
            embeddings=embeddings,
            ip_adapter=None if ip_adapter is None else Weighted.read(ip_adapter),
            controlnets=tuple(map(Weighted.read, controlnets)),
            **fields,
        )
        additions.check()
        return command(*args, additions=additions, **kwargs)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def _fact(one: Weighted) -> dict[str, Any]:
    path = Path(one.source).expanduser()
    known: dict[str, Any] = {"source": one.source}
    if path.is_file():
        known = {"file": path.name, "sha256": _sha256(path)}
    elif path.is_dir():
        files = sorted(path.rglob(f"*{_WEIGHTS}"))
        known = {"file": path.name, "sha256": [_sha256(file) for file in files]}
    return known if one.weight == 1 else known | {"weight": one.weight}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _place(source: str) -> tuple[str, dict[str, str]]:
    """Folder or hub id, and the file in it if one is named. Files of other kinds could run code when they are read."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix != _WEIGHTS:
            raise ModelError(f"{source}: only {_WEIGHTS} files are read; other formats can hold code; convert it")
        return str(path.parent), {"weight_name": path.name}
    if path.is_dir() or source.count("/") == 1:
        return source, {}
    raise ModelError(f"{source}: there is no such file or folder, and it is no hub id (owner/name)")


def _try(source: str, load: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Load something; errors name what."""
    positional = [value for value in args if not isinstance(value, Mapping)]
    for value in args:
        options |= value if isinstance(value, Mapping) else {}
    try:
        return load(*positional, **options)
    except ImportError as error:
        raise ModelError(f"{source}: {error}; pip install 'instancediffusion[adapters]'") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        peft = "; pip install 'instancediffusion[adapters]'" if "PEFT" in reason else ""
        raise ModelError(f"{source}: cannot be loaded ({reason[:200]}){peft}") from error


def _picture(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SettingsError(f"{path}: is no picture that can be read ({str(error)[:80]})") from error
