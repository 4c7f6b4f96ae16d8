"""Which weight files of a model folder to take: variants such as `fp16`, safetensors before pickles, shards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from instancediffusion.errors import ModelError

# `model.safetensors`, `diffusion_pytorch_model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`, the older
# `model-00001-of-00002.fp16.safetensors`, and the indices of shards.
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<variant>[\w-]+?))?(?:-\d{5}-of-\d{5})?(?:\.(?P<late>[\w-]+?))?\.(?P<kind>safetensors|bin)"
    r"(?:\.(?P<late_index>[\w-]+))?(?:\.index(?:\.(?P<index>[\w-]+))?\.json)?"
)
# Weights of other frameworks and files of no component.
_FOREIGN = (".msgpack", ".onnx", ".onnx_data", ".pb", ".h5", ".ckpt", ".pth", ".pt", ".xml", ".gguf", ".tflite", ".bin")


def _read_name(name: str) -> tuple[str, str | None] | None:
    """(`safetensors` or `bin`, variant) of a weight file or index; None for any other file."""
    found = _WEIGHTS.fullmatch(name)
    if found is None:
        return None
    return found["kind"], found["variant"] or found["late"] or found["late_index"] or found["index"]


def choose_variant(components: Mapping[str, Iterable[str]], asked: str | None, where: str) -> str | None:
    """The variant to load a model in.

    Args:
        components: by component, the names of the files in its folder.
        asked: the variant asked for; None means the plain weights, or the only variant there is where a component has
            no plain ones.
        where: the model's name, for messages.

    Returns:
        A variant that at least one component has (others are taken plain), or None for plain weights alone.

    Raises:
        ModelError: there is no such variant, or several and none is asked for. What there is, is listed.
    """
    held: dict[str, set[str | None]] = {}
    for component, names in components.items():
        variants = {read[1] for name in names if (read := _read_name(name)) is not None}
        if variants:
            held[component] = variants
    named = sorted({variant for variants in held.values() for variant in variants if variant is not None})
    if asked is not None:
        if held and asked not in named:
            listed = ", ".join(named) or "none, only plain weights"
            raise ModelError(f"variant: {where} has no {asked!r} weights; its variants are: {listed}")
        return asked
    lacking = {component: variants for component, variants in held.items() if None not in variants}
    if not lacking:
        return None
    common = set.intersection(*lacking.values())
    if len(common) != 1:
        component = sorted(lacking)[0]
        raise ModelError(f"variant: {where} has no plain weights for {component}; pass variant= ({', '.join(named)})")
    return str(next(iter(common)))


def adapter_variant(names: Sequence[str], asked: str | None, where: str) -> str | None:
    """The variant of an adapter that stands by itself: the one asked for if it has that, else see `choose_variant`.

    The call that loads a model names one variant, and a model and an adapter from elsewhere need not have the same.
    """
    held = {read[1] for name in names if (read := _read_name(name)) is not None}
    return choose_variant({"the adapter": names}, asked if asked in held else None, where)


def files_to_load(component: str, names: Sequence[str], variant: str | None, where: str) -> list[str]:
    """The files of one component's folder that loading it needs.

    Args:
        component: its name, for messages.
        names: the files of its folder.
        variant: see `choose_variant`; plain weights are taken where the component does not have it.
        where: the model's name, for messages.

    Raises:
        ModelError: it has weights, but neither in that variant nor plain.
    """
    read = {name: found for name in names if (found := _read_name(name)) is not None}
    others = [name for name in names if name not in read and not name.endswith(_FOREIGN)]
    if not read:
        return others
    held = {of for _, of in read.values()}
    taken = variant if variant in held else None
    if taken not in held:
        raise ModelError(
            f"variant: {component} of {where} has weights in {', '.join(sorted(filter(None, held)))} only; "
            "pass variant= with one of them"
        )
    kinds = {kind for kind, of in read.values() if of == taken}
    best = "safetensors" if "safetensors" in kinds else "bin"
    return others + [name for name, found in read.items() if found == (best, taken)]
