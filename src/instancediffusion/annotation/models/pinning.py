"""Finding a model and pinning it: its commit on the hub, or the hashes of the files of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from instancediffusion.errors import ModelError
from instancediffusion.runs import file_sha256

_PINNED = (".safetensors", ".json", ".txt", ".model")


@dataclass(frozen=True)
class Found:
    """A model that is there.

    Attributes:
        name: hub id, or folder.
        revision: the commit on the hub; None for a folder.
        config: the model's configuration (of `transformers`).
        pin: what a manifest says of it; see `stages.Stage`.
        device: where it is to run.
    """

    name: str
    revision: str | None
    config: Any
    pin: Mapping[str, Any]
    device: torch.device

    @property
    def kind(self) -> str:
        """Its `model_type`."""
        return str(self.config.model_type)

    def load(self, kind: type) -> Any:
        """Load weights as a class of `transformers`; never a pickle, never code from the hub.

        Raises:
            ModelError: there are no weights in safetensors format, or they do not fit.
        """
        try:
            model = kind.from_pretrained(self.name, revision=self.revision or "main", use_safetensors=True)  # type: ignore[attr-defined]
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{self.name}: its weights cannot be loaded: {_first_line(error)}") from error
        return model.eval().requires_grad_(False).to(self.device)

    def tokenizer(self) -> Any:
        """Load its tokenizer."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.name, revision=self.revision or "main", use_fast=True)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(f"{self.name}: its tokenizer cannot be loaded: {_first_line(error)}") from error

    def preparation(self) -> dict[str, Any]:
        """Read how it wants its pictures: the values of `preprocessor_config.json`."""
        from transformers.image_processing_base import ImageProcessingMixin

        try:
            values, _ = ImageProcessingMixin.get_image_processor_dict(self.name, revision=self.revision or "main")
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.name}: has no preprocessor_config.json: {_first_line(error)}") from error
        return dict(values)


def find(text: str, stage: str, device: torch.device) -> Found:
    """Find a model.

    Args:
        text: a folder, a hub id, or `ID@REVISION`.
        stage: what it is for, named in errors.
        device: where it is to run.

    Raises:
        ModelError: there is none, or it needs code of its own.
    """
    from transformers import AutoConfig

    folder = Path(text)
    name, _, wanted = (text, "", "") if folder.is_dir() else text.partition("@")
    try:
        config = AutoConfig.from_pretrained(name, revision=wanted or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        message = f"{stage}: {text}: no such model: {_first_line(error)}"
        raise ModelError(
            f"{message} (a folder, a hub id or ID@REVISION is taken; code from the hub never runs)"
        ) from error
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.suffix in _PINNED)
        hashes = {path.name: file_sha256(path) for path in files}
        return Found(
            name, None, config, {"model": folder.resolve().name, "type": config.model_type, "sha256": hashes}, device
        )
    revision = getattr(config, "_commit_hash", None)
    if revision is None:
        raise ModelError(f"{stage}: {text}: the hub does not say which commit this is; name it as ID@REVISION")
    return Found(name, revision, config, {"model": name, "type": config.model_type, "revision": revision}, device)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
