"""Loading and publishing of the pipeline: names, folders, single files and the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import is_transformers_available
from huggingface_hub import ModelCard

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.adapter.card import PublishedWithCard, model_card, publish
from instancediffusion.checkpoints.hub import HUB_OPTIONS
from instancediffusion.errors import ModelError
from instancediffusion.pipeline.clip_text import clip_text_parts
from instancediffusion.pipeline.components import components_from_file
from instancediffusion.pipeline.loading import (
    DEFAULT_MODEL,
    DTYPE,
    check_complete,
    check_text_encoders,
    folder_variant,
    load_adapter,
    local_model,
)

_SUMMARY = "Text-to-image generation in which every object has its own caption, its own location and its own layer."
_USAGE = """
from instancediffusion import InstanceDiffusionPipeline, load_scene

pipe = InstanceDiffusionPipeline.from_pretrained("{name}")
image = pipe(load_scene("scene.json"), seed=0).images[0]
"""


class HubMixin(PublishedWithCard, DiffusionPipeline):
    """What `InstanceDiffusionPipeline` adds to diffusers' loading, saving and publishing."""

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str] = DEFAULT_MODEL, **options: Any) -> Any:
        """Load a model.

        Args:
            name: `"mini"` (in the package; the default), `"sd15"`, a folder, a model in one file (`.safetensors`,
                `.ckpt`, `.pth`), a hub id `owner/name`, or a file on the hub, `owner/name/file`.
            options: arguments of `DiffusionPipeline.from_pretrained`, such as `torch_dtype`, `variant`, `device_map` or
                `quantization_config` (the adapter is one of the components they may name), or components that take the
                place of the model's. `adapter` may also be a folder, file or hub id, see `checkpoints.read_adapter`;
                `adapter_revision` is the revision of that hub id. `variant` may be left out where a model has
                weights in one variant only. For a model in one file, the options of `from_single_file`.

        Raises:
            ModelError: no such model, a component is missing, or components do not fit each other.
            CheckpointError: a file is not what it should be.
        """
        options = _with_dtype(options)
        hub = {key: options[key] for key in HUB_OPTIONS if options.get(key) is not None}
        given = [key for key in cls._get_signature_keys(cls)[0] if options.get(key) is not None]
        variant = options.pop("variant", None)
        path = local_model(name, variant=variant, given=given, **hub)
        if path.is_file():
            return cls.from_single_file(path, **options)
        check_complete(path, options, str(name))
        adapter, revision = options.pop("adapter", None), options.pop("adapter_revision", None)
        if adapter is not None:
            options["adapter"] = load_adapter(adapter, variant=variant, adapter_revision=revision, **options)
        options["variant"] = folder_variant(path, variant, given, str(name))
        if is_transformers_available():
            pipeline = super().from_pretrained(str(path), **options)
            check_text_encoders(path, pipeline.components, given, str(name))
        else:  # never installed without it: a process that makes pictures of `mini` and ends has hidden it
            pipeline = super().from_pretrained(str(path), **options, text_encoder=None, tokenizer=None)
            pipeline.register_modules(**clip_text_parts(path, options[DTYPE]))
        pipeline.register_to_config(_name_or_path=str(name))
        _bring_together(pipeline)
        return pipeline

    @classmethod
    def from_single_file(cls, path: str | os.PathLike[str], **options: Any) -> Any:
        """Load a model from one file: the published checkpoint, or a Stable Diffusion 1.x, 2.x or XL model.

        Args:
            path: the file, or `owner/name/file` on the hub.
            options: `adapter` (see `from_pretrained`; the published checkpoint brings one); `torch_dtype`; components,
                such as `tokenizer` (no file holds one; without it, that of Stable Diffusion is downloaded once);
                `config`, `num_heads`, `text_heads`, `prediction_type` as in `checkpoints.load_single_file`, `config`
                being a folder or hub id; where to download.

        Raises:
            ModelError: no such file, or no adapter.
            CheckpointError: it is another kind of file, or not a whole one.
        """
        options = _with_dtype(options)
        hub = {key: options[key] for key in HUB_OPTIONS if options.get(key) is not None}
        file = local_model(path, **hub)
        if not file.is_file():
            raise ModelError(f"model: {file} is a folder; load it with from_pretrained")
        expected, optional = cls._get_signature_keys(cls)
        own = {key: options.pop(key) for key in [*expected, *optional] if key in options}
        pipeline = cls(**components_from_file(file, own, options, optional))
        pipeline.register_to_config(_name_or_path=str(path))
        return pipeline

    @classmethod
    def download(cls, name: str | os.PathLike[str], **options: Any) -> str:
        """The local folder of a model of the hub, as `from_pretrained` downloads it."""
        hub = {key: options[key] for key in HUB_OPTIONS if options.get(key) is not None}
        return str(local_model(name, variant=options.get("variant"), **hub))

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Read `model_index.json`, as diffusers does, and say where the adapter's class is.

        diffusers wants the module a class is defined in, since it looks for the base class there, too; folders name
        the package, which may be cut anew.
        """
        loaded = super().load_config(*args, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        if config.get("adapter"):
            config["adapter"] = [InstanceAdapter.__module__, InstanceAdapter.__name__]
        return loaded

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **options: Any) -> None:
        """Save as diffusers does; with `push_to_hub=True` and maybe `repo_id=`, publish it with a card, too."""
        push = options.pop("push_to_hub", False)
        names = ("repo_id", "token", "private", "create_pr", "commit_message")
        hub = {name: options.pop(name) for name in names if name in options}
        super().save_pretrained(save_directory, *args, **options)
        if push:
            repository = hub.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            publish(save_directory, repository, self._card(repository), **hub)

    def _card(self, repository: str) -> ModelCard:
        unet, adapter = self.unet.config, self.adapter.config
        changed = {k: v for k, v in dict(self.config.get("default_settings") or {}).items() if v is not None}
        settings = ", ".join(f"{name} {value}" for name, value in changed.items())
        size = unet.sample_size if isinstance(unet.sample_size, int) else max(unet.sample_size)
        facts = [
            ("UNet", f"{sum(p.numel() for p in self.unet.parameters()) / 1e6:.0f} M parameters, latents of {size}"),
            ("adapter", f"{sum(p.numel() for p in self.adapter.parameters()) / 1e6:.0f} M parameters"),
            ("instance mask", str(adapter.default_instance_mask)),
            ("scheduler", type(self.scheduler).__name__),
            ("default settings", settings or "those of the library"),
        ]
        source = str(self.config.get("_name_or_path") or "")
        base = source if source.count("/") == 1 and not os.path.exists(source) else None
        return model_card(repository, _SUMMARY, _USAGE.format(name=repository), facts, base)


def _with_dtype(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with a type stated, because diffusers and transformers read half-precision files into different types.

    It may be given as `torch_dtype`, the usual name, or as `dtype`, as in newer diffusers.
    """
    found = dict(options)
    given = [found.pop(name) for name in ("dtype", "torch_dtype") if name in found]
    stated = [dtype for dtype in given if dtype is not None]
    return {**found, DTYPE: stated[0] if stated else torch.float32}


def _bring_together(pipeline: Any) -> None:
    """The adapter's layers run inside the UNet, so it has to be on the same device whatever a device map says."""
    device = pipeline.unet.device
    if device.type != "meta" and pipeline.adapter.device != device:
        pipeline.adapter.to(device)
