"""A grafted network computed by OpenVINO, adapter included.

The call is exported (`torch.export`) with all that changes between calls as its inputs: latents, time step, texts, keys
and values of the grounding tokens, biases, box-relative features and the grounding scale. Weights are constants of the
graph, which OpenVINO brings to the layout of the device's instructions once. Shapes are static, one batch element at a
time, so that one graph serves guided and unguided calls and per-instance branches; the number of grounding tokens is
rounded up by hidden ones, so that it serves scenes of any few instances.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from instancediffusion.adapter.backbones import backbone_of, core_network
from instancediffusion.adapter.graft import graft_on
from instancediffusion.adapter.grounding import Grounding, MapGrounding
from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.attention_mask import AttentionBias
from instancediffusion.errors import ModelError, SettingsError

TOKENS = 64
"""The number of grounding tokens is rounded up to a multiple of this: 128 for up to 15 instances of published weights,
192 for up to 31."""
GRAPHS = 6
"""Graphs of one network that are kept, the last used ones: each has its own copy of the weights."""

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
_PLAIN = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm, nn.SiLU, nn.GELU, nn.Dropout, nn.ModuleList, nn.ModuleDict)
"""Modules that have nothing but weights."""
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_SIMPLE = bool | int | float | str | None


class OpenVINOCall:
    """The call of one network; it takes the place that `nn.Module.compile` gives to a compiled one.

    Where gradients are recorded, or other objects than tensors and groundings are handed down, the network is called as
    it is. Weights that change (LoRA files, FreeU, IP-Adapters) are noticed: graphs are made anew. A copy or pickle of
    the network is without it.

    Args:
        network: with an adapter grafted on or without.
        device: as OpenVINO names it: "CPU", "GPU", "AUTO".
        ov_config: OpenVINO's properties. By default `INFERENCE_PRECISION_HINT` is the type of the network's weights,
            `INFERENCE_NUM_THREADS` torch's number of threads, `PERFORMANCE_HINT` "LATENCY".

    Raises:
        ModelError: OpenVINO is not installed, or a network of no known base model.
        SettingsError: OpenVINO has no such device here.
    """

    def __init__(self, network: nn.Module, device: str = "CPU", ov_config: Mapping[str, Any] | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise ModelError(
                "openvino: OpenVINO is not installed; pip install 'instancediffusion[openvino]'"
            ) from error
        self._core, self._convert = openvino.Core(), openvino.convert_model
        known = self._core.available_devices
        if device.partition(".")[0].partition(":")[0] not in ("AUTO", "HETERO", "MULTI", *known):
            raise SettingsError(f"device: OpenVINO has no {device!r} here; it has {', '.join(known)}")
        self._backbone = backbone_of(network)
        self._network, self._device, self._config = network, device, dict(ov_config or {})
        self._graphs: OrderedDict[Any, _Graph] = OrderedDict()
        self._state: tuple[Any, ...] = ()
        self._lock = threading.Lock()

    @staticmethod
    def of(network: Any) -> OpenVINOCall | None:
        """That of a network, whatever is around it; None where there is none."""
        found = getattr(core_network(network), "_compiled_call_impl", None)
        return found if isinstance(found, OpenVINOCall) else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the network."""
        if len(args) > 1 and isinstance(args[1], int | float):
            args = (args[0], torch.tensor(args[1]), *args[2:])
        elif isinstance(kwargs.get("timestep"), int | float):
            kwargs["timestep"] = torch.tensor(kwargs["timestep"])
        return self.run("whole", self._network._call_impl, *args, **kwargs)

    def run(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Compute what a function of the network's modules returns.

        Args:
            name: of the function; functions of one name are the same.
            function: called once, to be exported.
            args: for it; all tensors have the batch B as their first dimension, but those that all elements share.
            kwargs: for it.

        Raises:
            ModelError: the tensors are not on the processor.
        """
        if torch.is_grad_enabled():
            return function(*args, **kwargs)
        call = _Call.of(args, kwargs, self._map_sizes)
        if not all(isinstance(each, _Form | _Place | _SIMPLE) for each in call.constants):
            warnings.warn(
                "openvino: this call hands down more than tensors, as mis_merge='regional' and token_merging do; torch "
                "computes it",
                stacklevel=2,
            )
            return function(*args, **kwargs)
        first = call.tensors[0]
        if first.device.type != "cpu":
            raise ModelError(
                f"unet: OpenVINO computes it and takes tensors of the processor, these are on {first.device}; move the "
                'pipeline (`.to("cpu")`), or call disable_openvino()'
            )
        with self._lock:
            modules = self._modules()
            rows = [self._row(name, function, call, modules, row) for row in range(len(first))]
        joined = [
            torch.cat(parts) if parts[0].dim() else parts[0] for parts in zip(*(out for out, _ in rows), strict=True)
        ]
        if call.ran is not None:
            call.ran.extend(rows[0][1].found.ran)
        return pytree.tree_unflatten(joined, rows[0][1].found.answer)

    def _row(
        self, name: str, function: Callable[..., Any], call: _Call, modules: Sequence[nn.Module], row: int
    ) -> tuple[list[Tensor], _Graph]:
        """One batch element, and the graph that it took."""
        batch = len(call.tensors[0])
        tensors = [t[row : row + 1] if t.dim() and len(t) == batch else t for t in call.tensors]
        key = (name, call.structure, call.constants, tuple((tuple(t.shape), t.dtype) for t in tensors))
        if key not in self._graphs:
            while len(self._graphs) >= GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[key] = self._made(modules, function, call, tensors)
        self._graphs.move_to_end(key)
        return self._graphs[key](tensors), self._graphs[key]

    def _made(
        self, modules: Sequence[nn.Module], function: Callable[..., Any], call: _Call, tensors: Sequence[Tensor]
    ) -> _Graph:
        traced = _Traced(modules, function, call, [t.dtype for t in tensors])
        # Values do not matter; tensors of inference mode could not be exported.
        with torch.inference_mode(False), torch.no_grad(), _untouched(modules), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            examples = tuple(torch.zeros(t.shape, dtype=_taken(t.dtype)) for t in tensors)
            exported = torch.export.export(traced, examples)
            model = self._convert(exported)
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()} if self._device == "CPU" else {}
        precision = _PRECISIONS[next(p.dtype for p in self._network.parameters() if p.dtype in _PRECISIONS)]
        usual = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision, **threads}
        compiled = self._core.compile_model(model, self._device, {**usual, **self._config})
        places = {name: place for place, name in enumerate(exported.graph_signature.user_inputs)}
        inputs = [place for port in model.inputs for name, place in places.items() if name in port.names]
        return _Graph(compiled.create_infer_request(), inputs, traced.found)

    def _map_sizes(self, sample: Tensor) -> list[tuple[int, int]]:
        height, width = sample.shape[-2:]
        return self._backbone.map_sizes(self._network, height, width)

    def _modules(self) -> list[nn.Module]:
        """The network, and the adapter on it; graphs of what they were before are dropped."""
        carried = graft_on(self._network)
        adapter = None if carried is None or carried.owner.adapter is None else carried.owner.adapter()
        modules = [self._network, *([] if adapter is None else [adapter])]
        state = tuple(_state(modules))
        if state != self._state:
            self._graphs.clear()
            self._state = state
        return modules


class _Found:
    """What is seen while a function is exported. No container, of which an export would put back a copy.

    Attributes:
        dtypes: of what it returns.
        answer: where that belongs.
        ran: the gated layers.
    """

    def __init__(self) -> None:
        self.dtypes: list[torch.dtype] = []
        self.answer: Any = None
        self.ran: list[str] = []


@dataclass(frozen=True, eq=False)
class _Graph:
    """A compiled graph, and which of the call's tensors it takes."""

    request: Any
    inputs: Sequence[int]
    found: _Found

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        arrays = [tensors[place].to(_taken(tensors[place].dtype)).contiguous().numpy() for place in self.inputs]
        answers = self.request.infer(dict(enumerate(arrays)), share_inputs=True).values()
        return [torch.from_numpy(array).to(dtype) for array, dtype in zip(answers, self.found.dtypes, strict=True)]


class _Place:
    """Stands for a tensor among the constants of a call."""


_TENSOR = _Place()


@dataclass(frozen=True, eq=False)
class _Call:
    """Arguments of a call, tensors apart from all else.

    Attributes:
        tensors: those that differ between calls; the first has the batch.
        structure: where they belong.
        constants: all other arguments, which are part of a graph.
        layers: gated layers by name.
        ran: takes their names, see `Grounding`.
    """

    tensors: list[Tensor]
    structure: Any
    constants: tuple[Any, ...]
    layers: Mapping[str, nn.Module]
    ran: list[str] | None

    @classmethod
    def of(cls, args: Any, kwargs: Any, sizes: Callable[[Tensor], list[tuple[int, int]]]) -> _Call:
        leaves, structure = pytree.tree_flatten((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Grounding))
        sample = kwargs.get("sample", next(leaf for leaf in leaves if isinstance(leaf, Tensor)))
        tensors: list[Tensor] = []
        constants: list[Any] = []
        ran: list[str] | None = None
        layers: Mapping[str, nn.Module] = {}
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                tensors.append(leaf)
                constants.append(_TENSOR)
            elif isinstance(leaf, Grounding):
                ran, layers = leaf.ran, leaf.layers
                form, parts = _Form.of(leaf, partial(sizes, sample))
                tensors += parts
                constants.append(form)
            else:
                constants.append(leaf)
        return cls(tensors, structure, tuple(constants), layers, ran)

    def arguments(self, tensors: Iterator[Tensor], ran: list[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same arguments from other tensors."""
        leaves: list[Any] = []
        for constant in self.constants:
            if isinstance(constant, _Form):
                leaves.append(constant.grounding(tensors, self.layers, ran))
            else:
                leaves.append(next(tensors) if constant is _TENSOR else constant)
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        return args, kwargs


@dataclass(frozen=True)
class _Form:
    """What of a grounding is part of a graph.

    Attributes:
        names: of the gated layers; none where the grounding scale is 0.
        maps: (height, width), and whether there are a mask of visual tokens and box-relative features.
    """

    names: tuple[str, ...]
    maps: tuple[tuple[tuple[int, int], bool, bool], ...]

    @classmethod
    def of(cls, grounding: Grounding, sizes: Callable[[], list[tuple[int, int]]]) -> tuple[_Form, list[Tensor]]:
        """That of a grounding, and its tensors."""
        if grounding.scale == 0:
            return cls((), ()), []
        maps = grounding.maps or grounding.on_maps(sizes()).maps
        hidden = -grounding.log_weight.shape[1] % TOKENS
        tensors = [torch.tensor(float(grounding.scale))]
        for pair in grounding.keys_values.values():
            tensors += [functional.pad(part, (0, 0, 0, hidden)) for part in pair]
        for one in maps:
            tensors.append(functional.pad(one.bias.tokens, (0, hidden), value=-torch.inf))
            tensors += [part for part in (one.bias.visual, one.relative) if part is not None]
        kinds = tuple((one.size, one.bias.visual is not None, one.relative is not None) for one in maps)
        return cls(tuple(grounding.keys_values), kinds), tensors

    def grounding(self, tensors: Iterator[Tensor], layers: Mapping[str, nn.Module], ran: list[str]) -> Grounding:
        """A grounding of other tensors."""
        scale = next(tensors) if self.names else None
        keys_values = {name: (next(tensors), next(tensors)) for name in self.names}
        maps = []
        for size, visual, relative in self.maps:
            bias = AttentionBias(next(tensors), next(tensors) if visual else None)
            maps.append(MapGrounding(size, bias, next(tensors) if relative else None))
        nothing = torch.zeros(1, 0)
        return Grounding(
            layers={name: _Scaled(layers[name], cast(Tensor, scale)) for name in self.names},  # type: ignore[misc]
            keys_values=keys_values,
            log_weight=nothing,
            slot=nothing,
            kind=nothing,
            locations=LocationTensors.empty(1),
            scale=float(bool(self.names)),
            maps=maps,
            ran=ran,
        )


class _Scaled:
    """A gated layer whose scale is an input of the graph."""

    def __init__(self, layer: nn.Module, scale: Tensor) -> None:
        self._layer, self._scale = layer, scale

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, bias: Any, _: float, *more: Any) -> Tensor:
        changed: Tensor = self._layer(x, keys, values, bias, self._scale, *more)
        return changed


class _Traced(nn.Module):
    """What is exported: tensors in, tensors out, numbers in float32."""

    def __init__(
        self, modules: Sequence[nn.Module], function: Callable[..., Any], call: _Call, dtypes: Sequence[torch.dtype]
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self._function, self._call, self._dtypes = function, call, dtypes
        self.found = _Found()

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        """Call the function."""
        given = (tensor.to(dtype) for tensor, dtype in zip(tensors, self._dtypes, strict=True))
        self.found.ran.clear()
        args, kwargs = self._call.arguments(given, self.found.ran)
        leaves, self.found.answer = pytree.tree_flatten(self._function(*args, **kwargs))
        self.found.dtypes = [leaf.dtype for leaf in leaves]
        return [leaf.to(_taken(leaf.dtype)) for leaf in leaves]


@contextmanager
def _untouched(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Keep what is set on modules: an export puts back copies of lists and dictionaries."""
    before = [(module, dict(vars(module))) for root in modules for module in root.modules()]
    try:
        yield
    finally:
        for module, values in before:
            vars(module).update(values)


def _taken(dtype: torch.dtype) -> torch.dtype:
    """The type that goes in or out for a type."""
    return torch.float32 if dtype.is_floating_point else dtype


def _state(modules: Sequence[nn.Module]) -> Iterator[Any]:
    """All that a graph of modules depends on and that may change: weights, what is set on modules, hooks."""
    for module in (part for root in modules for part in root.modules()):
        for weights in (*module._parameters.values(), *module._buffers.values()):
            if weights is not None:
                yield weights.data_ptr(), 0 if weights.is_inference() else weights._version
        if type(module) not in _PLAIN:
            yield type(module), _settings(module), _settings(getattr(module, "processor", None))
        yield len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module)


def _settings(thing: Any) -> tuple[Any, ...]:
    """What is set on a module, or on a processor of its attention, as plain values."""
    if thing is None:
        return ()
    values = vars(thing).items()
    return (type(thing), *((k, repr(v)) for k, v in values if k not in _OF_EVERY_MODULE and _simple(v)))


def _simple(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_simple, value.values()))
    return all(map(_simple, value)) if isinstance(value, list | tuple | set) else isinstance(value, _SIMPLE)
