"""What is added to a model and its scenes: LoRA files, control and reference pictures, edits, layers.

The command line and the studio read different things into `Additions`; all that is done with them is here. torch is
loaded only where something is loaded.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instancediffusion.errors import InstanceDiffusionError, ModelError, SettingsError

if TYPE_CHECKING:
    from instancediffusion.scene import Scene

WEIGHTS = ".safetensors"
LORA_FOLDER = "lora"
"""Where a model's folder may hold LoRA files of its own, which can be asked for by name."""
_EXTRA = "pip install 'instancediffusion[adapters]'"


@dataclass(frozen=True)
class Weighted:
    """A file, a folder or a hub id, with a weight."""

    source: str
    weight: float = 1.0

    @classmethod
    def read(cls, text: str) -> Weighted:
        """Read PATH or PATH:WEIGHT; a path that is there as it stands has no weight."""
        head, colon, tail = text.rpartition(":")
        if colon and head and not Path(text).exists():
            try:
                return cls(head, float(tail))
            except ValueError:
                pass
        return cls(text)


@dataclass(frozen=True)
class Additions:
    """Everything beside model, scenes and settings that decides pictures.

    Attributes:
        loras: LoRA files or hub ids with their weights.
        embeddings: textual inversions.
        ip_adapter: an IP-Adapter with its weight.
        ip_adapter_image: a picture it looks at everywhere, beside the references of instances.
        controlnets: ControlNets and T2I-Adapters with their weights.
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
    ip_adapter_image: Path | None = None
    controlnets: Sequence[Weighted] = ()
    controls: Sequence[Path] = ()
    image: Path | None = None
    mask: Path | None = None
    edit: Path | None = None
    redraw: Sequence[int] = ()
    layers: bool = False

    def with_model(self, folder: Path) -> Additions:
        """The same, with the paths of LoRA files that are named as the model's folder holds them in `lora/`.

        A file or folder of that name in the working directory goes first.

        Args:
            folder: of the model.
        """
        return replace(self, loras=tuple(_found_in(folder, lora) for lora in self.loras))

    def check(self) -> None:
        """Raise what is wrong before anything is loaded.

        Raises:
            SettingsError: something contradicts itself.
            ModelError: a library is missing.
        """
        if len(self.controlnets) != len(self.controls):
            raise SettingsError(
                f"control: {len(self.controls)} pictures for {len(self.controlnets)} ControlNets; give a --control for "
                "each --controlnet"
            )
        if self.ip_adapter_image is not None and self.ip_adapter is None:
            raise SettingsError("ip_adapter_image: there is no IP-Adapter to look at it; add --ip-adapter")
        if self.mask is not None and self.image is None:
            raise SettingsError("mask: there is no picture; add --image")
        for name, given in (("image", self.image), ("layers", self.layers or None)):
            if self.edit is not None and given is not None:
                raise SettingsError(f"{name}: it does not go with --edit; leave one of them out")
        if self.redraw and self.edit is None:
            raise SettingsError("redraw: there is no picture; add --edit")
        if self.loras and not _has_peft():
            raise ModelError(f"lora: LoRA files need PEFT, which is not installed; {_EXTRA}")

    def facts(self) -> dict[str, Any]:
        """What of it decides pictures, for the manifest: files by name and hash, hub ids as they are."""
        facts: dict[str, Any] = {}
        if self.loras:
            facts["lora"] = [_fact(one) for one in self.loras]
        if self.embeddings:
            facts["textual_inversion"] = [_fact(Weighted(one)) for one in self.embeddings]
        if self.ip_adapter is not None:
            facts["ip_adapter"] = _fact(self.ip_adapter)
        if self.controlnets:
            pictures = [file_fact(path) for path in self.controls]
            facts["control"] = [
                _fact(net) | {"picture": own} for net, own in zip(self.controlnets, pictures, strict=True)
            ]
        for name in ("ip_adapter_image", "image", "mask", "edit"):
            path = getattr(self, name)
            if path is not None:
                facts[name] = file_fact(path)
        if self.redraw:
            facts["redraw"] = list(self.redraw)
        if self.layers:
            facts["layers"] = True
        return facts

    @property
    def of_model(self) -> dict[str, Any]:
        """What `load` puts into a model, of `facts`: the same for additions that load the same content."""
        own = Additions(loras=self.loras, embeddings=self.embeddings, ip_adapter=self.ip_adapter)
        return own.facts()

    def load(self, pipeline: Any) -> Callable[[], None]:
        """Load what belongs to the model.

        Returns:
            What takes it out of the model again.

        Raises:
            ModelError: something cannot be loaded; the model is then as it was.
        """
        undo: list[Callable[[], object]] = []

        def unload() -> None:
            while undo:
                undo.pop()()

        try:
            self._load(pipeline, undo)
        except BaseException:
            unload()
            raise
        return unload

    def _load(self, pipeline: Any, undo: list[Callable[[], object]]) -> None:
        names = []
        for number, lora in enumerate(self.loras):
            names.append(f"lora{number}")
            arguments = _load_arguments("lora", lora.source)
            if number == 0 and _has_peft():
                undo.append(pipeline.unload_lora_weights)
            _try("lora", lora.source, pipeline.load_lora_weights, *arguments, adapter_name=names[-1])
        if names:
            weights_of = [lora.weight for lora in self.loras]
            _try("lora", self.loras[-1].source, pipeline.set_adapters, names, weights_of)
        for source in self.embeddings:
            folder, weights = _load_arguments("textual_inversion", source)
            before = set(pipeline.tokenizer.get_added_vocab())
            _try("textual_inversion", source, pipeline.load_textual_inversion, folder, **weights)
            new = [token for token in pipeline.tokenizer.get_added_vocab() if token not in before]
            if new:
                undo.append(functools.partial(pipeline.unload_textual_inversion, new))
        if self.ip_adapter is not None:
            folder, weights = _load_arguments("ip_adapter", self.ip_adapter.source)
            own = {name: getattr(pipeline, name, None) for name in ("image_encoder", "feature_extractor")}
            encoder = "image_encoder" if own["image_encoder"] is None else None
            options: dict[str, Any] = {"weight_name": "ip-adapter_sd15.safetensors", "subfolder": "models", **weights}
            if weights:
                options |= {"subfolder": "", "image_encoder_folder": encoder}

            def take_out() -> None:
                pipeline.unload_ip_adapter()
                pipeline.register_modules(**own)  # which diffusers takes out, too

            undo.append(take_out)
            _try("ip_adapter", self.ip_adapter.source, pipeline.load_ip_adapter, folder, **options)
            pipeline.set_ip_adapter_scale(self.ip_adapter.weight)

    def call(self, pipeline: Any) -> dict[str, Any]:
        """The arguments they are for a call of the pipeline.

        Raises:
            ModelError: a network cannot be loaded.
            SettingsError: a picture cannot be read.
        """
        options: dict[str, Any] = {"layers": True} if self.layers else {}
        given: dict[str, list[tuple[Any, Any, float]]] = {}
        for net, path in zip(self.controlnets, self.controls, strict=True):
            name, model = _network(net.source, pipeline.unet.dtype)
            given.setdefault(name, []).append((model, _picture("control", path), net.weight))
        for name, entries in given.items():
            values = [list(column) if len(entries) > 1 else column[0] for column in zip(*entries, strict=True)]
            options |= dict(zip(_ARGUMENTS[name], values, strict=True))
        for name in ("image", "ip_adapter_image"):
            if (shown := getattr(self, name)) is not None:
                options[name] = _picture(name, shown)
        if self.mask is not None:
            options["mask_image"] = _picture("mask", self.mask).convert("L")
        return options

    def maker(self, pipeline: Any, settings: Any, **more: Any) -> Callable[[Sequence[Scene], Sequence[int]], Any]:
        """What makes the pictures of some scenes with some seeds; `more` are further arguments of the calls."""
        options = self.call(pipeline) | more
        if self.edit is None:
            return lambda scenes, seeds: pipeline(list(scenes), seed=list(seeds), settings=settings, **options)
        redraw = [number - 1 for number in self.redraw]
        return lambda scenes, seeds: pipeline.edit(
            self.edit, scenes[0], seed=seeds[0], settings=settings, redraw=redraw, **options
        )


def _found_in(folder: Path, lora: Weighted) -> Weighted:
    path = folder / LORA_FOLDER / f"{lora.source.removesuffix(WEIGHTS)}{WEIGHTS}"
    bare = Path(lora.source).name == lora.source and not Path(lora.source).exists()
    return replace(lora, source=str(path)) if bare and path.is_file() else lora


_ARGUMENTS = {
    "ControlNetModel": ("controlnet", "control_image", "controlnet_conditioning_scale"),
    "T2IAdapter": ("t2i_adapter", "t2i_adapter_image", "t2i_adapter_conditioning_scale"),
}


def _has_peft() -> bool:
    return importlib.util.find_spec("peft") is not None


def file_fact(path: Path) -> dict[str, str]:
    """A file by its name and hash."""
    return {"file": path.name, "sha256": _sha256(path)}


def _fact(one: Weighted) -> dict[str, Any]:
    path = Path(one.source).expanduser()
    fact: dict[str, Any] = {"source": one.source}
    if path.is_file():
        fact = dict(file_fact(path))
    elif path.is_dir():
        files = sorted(path.rglob(f"*{WEIGHTS}"))
        fact = {"file": path.name, "sha256": [_sha256(file) for file in files]}
    return fact if one.weight == 1 else fact | {"weight": one.weight}


def _sha256(path: Path) -> str:
    state = path.stat()
    return _hashed(path.resolve(), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=512)
def _hashed(path: Path, changed_ns: int, size: int) -> str:  # noqa: ARG001 - a file that was changed is hashed anew
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _load_arguments(field: str, source: str) -> tuple[str, dict[str, str]]:
    """Folder or hub id, and the file in it if one is named. Files of other kinds could run code when they are read."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix != WEIGHTS:
            raise ModelError(
                f"{field}: {source}: only {WEIGHTS} files are read; other formats can hold code; convert it"
            )
        return str(path.parent), {"weight_name": path.name}
    if path.is_dir() or source.count("/") == 1:
        return source, {}
    raise ModelError(f"{field}: {source}: there is no such file or folder, and it is no hub id (owner/name)")


def _network(source: str, dtype: Any) -> tuple[str, Any]:
    """A ControlNet or a T2I-Adapter, as its config says, and the name of its class."""
    import diffusers

    config = _try("controlnet", source, diffusers.ControlNetModel.load_config, source)
    name = config.get("_class_name", "ControlNetModel")
    if name not in _ARGUMENTS:
        raise ModelError(f"controlnet: {source}: it is of the kind {name}; give a ControlNetModel or a T2IAdapter")
    return name, _try("controlnet", source, getattr(diffusers, name).from_pretrained, source, torch_dtype=dtype)


def _try(field: str, source: str, load: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Load something; errors name what."""
    positional = [value for value in args if not isinstance(value, Mapping)]
    for value in args:
        options |= value if isinstance(value, Mapping) else {}
    try:
        return load(*positional, **options)
    except ImportError as error:
        raise ModelError(f"{field}: {source}: {error}; {_EXTRA}") from error
    except InstanceDiffusionError:
        raise
    except Exception as error:  # whatever other libraries make of a file that is damaged, or of another model
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        peft = f"; {_EXTRA}" if "PEFT" in reason else ""
        raise ModelError(f"{field}: {source}: cannot be loaded ({reason[:200]}){peft}") from error


def _picture(field: str, path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SettingsError(f"{field}: {path} is no picture that can be read ({str(error)[:80]})") from error
