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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from instancediffusion.adapter.backbones import backbone_of, core_network
from instancediffusion.adapter.graft import graft_on
from instancediffusion.adapter.grounding import Grounding, MapGrounding
from instancediffusion.adapter.quantization import Ranges, measuring, quantized
from instancediffusion.choices import PRECISIONS
from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.attention_mask import AttentionBias
from instancediffusion.errors import ModelError, SettingsError

TOKENS = 64
"""The number of grounding tokens is rounded up to a multiple of this: 128 for up to 15 instances of published weights,
192 for up to 31."""
GRAPHS = 6
"""Graphs of one network that are kept, the last used ones: each has its own copy of the weights."""

_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_PLAIN = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm, nn.SiLU, nn.GELU, nn.Dropout, nn.ModuleList, nn.ModuleDict)
"""Modules that have nothing but weights."""
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_SIMPLE = bool | int | float | str | None
_ORIGIN = ("_name_or_path", "_use_default_values", "_diffusers_version")
"""Entries of a component's configuration that tell where it is from; the second has another order in every process."""
_SEVERAL = ("AUTO", "HETERO", "MULTI")
"""Devices of OpenVINO that stand for others, which may be named: "AUTO:GPU,CPU"."""


class GraphStore(Protocol):
    """Where compiled graphs are kept, for later processes."""

    def read(self, key: str) -> tuple[dict[str, Any], Any] | None:
        """What was written: JSON-like facts, and an array of bytes."""

    def write(self, key: str, facts: Mapping[str, Any], graph: bytes) -> None:
        """Keep a graph."""


def _opened(core: Callable[[], Any]) -> tuple[Any, list[str]]:
    """OpenVINO's core with its plugins loaded, and its devices.

    The plugin of the CPU gives the thread that loads it a stack of its own for signal handlers, and takes that memory
    back when the plugin goes, from whichever thread: if another one, the first is left with a stack that is not there,
    and dies of the next signal that Python handles (Ctrl-C, a data loader's worker that ended). So a thread loads it
    that has ended by then.
    """

    def load() -> tuple[Any, list[str]]:
        made = core()
        return made, list(made.available_devices)

    with ThreadPoolExecutor(1) as once:
        return once.submit(load).result()


class OpenVINOCall:
    """The call of one network; it takes the place that `nn.Module.compile` gives to a compiled one.

    Where gradients are recorded, or other objects than tensors and groundings are handed down, the network is called as
    it is. Weights that change (LoRA files, FreeU, IP-Adapters) are noticed: graphs are made anew. A copy or pickle of
    the network is without it.

    Args:
        network: with an adapter grafted on or without.
        device: as OpenVINO names it: "CPU", "GPU", "AUTO".
        ov_config: OpenVINO's properties. By default `INFERENCE_PRECISION_HINT` is `precision`, with "int8" that of the
            remaining arithmetic: bfloat16 where the device has it; `INFERENCE_NUM_THREADS` torch's number of threads,
            `PERFORMANCE_HINT` "LATENCY".
        precision: one of `PRECISIONS`; None is the type of the network's weights. "int8" needs ranges:
            those that `measuring` takes while the network is called as it will be, for `quantize`.

    Raises:
        ModelError: OpenVINO is not installed, or a network of no known base model.
        SettingsError: OpenVINO has no such device here, or no such precision on it.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str = "CPU",
        ov_config: Mapping[str, Any] | None = None,
        precision: str | None = None,
    ) -> None:
        if precision not in (None, *PRECISIONS):
            raise SettingsError(f"precision: {precision!r} is none of {', '.join(PRECISIONS)}")
        try:
            import openvino
        except ImportError as error:
            raise ModelError(
                "openvino: OpenVINO is not installed; pip install 'instancediffusion[openvino]'"
            ) from error
        self._convert, self._tensor, self._version = openvino.convert_model, openvino.Tensor, openvino.get_version()
        self._core, known = _opened(openvino.Core)
        if device.partition(".")[0].partition(":")[0] not in (*_SEVERAL, *known):
            raise SettingsError(f"device: OpenVINO has no {device!r} here; it has {', '.join(known)}")
        self._backbone = backbone_of(network)
        self._network, self._device, self.precision = network, device, precision
        self._config = dict(ov_config or {})
        self._hint()  # says what is wrong with the precision
        self._graphs: OrderedDict[Any, _Graph] = OrderedDict()
        self._state: tuple[Any, ...] = ()
        self._lock = threading.Lock()
        self._ranges: Ranges = {}
        self._measured: tuple[Any, ...] | None = None
        self._store: GraphStore | None = None
        self._measuring: Ranges | None = None

    def _hint(self) -> str:
        """OpenVINO's word for the type of all that is not of 8 bits."""
        if self.precision in _HINTS:
            return _HINTS[self.precision]
        if self.precision == "int8":
            able = set.intersection(*map(set, self._of_devices("OPTIMIZATION_CAPABILITIES")))
            if "INT8" not in able:
                raise SettingsError(
                    f"precision: OpenVINO's {self._device} has no int8 here; it has {', '.join(sorted(able))}"
                )
            return "bf16" if "BF16" in able else "f32"
        dtypes = (str(weights.dtype).rpartition(".")[2] for weights in self._network.parameters())
        return next((_HINTS[dtype] for dtype in dtypes if dtype in _HINTS), "f32")

    def _of_devices(self, name: str) -> list[Any]:
        """A property of each device that may compute."""
        head, _, named = self._device.partition(":")
        several = head in _SEVERAL and named
        devices = [one.partition("(")[0] for one in named.split(",")] if several else [self._device]
        try:
            return [self._core.get_property(one, name) for one in devices if not one.startswith("-")]
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise SettingsError(f"device: OpenVINO has no {self._device!r} here ({reason})") from error

    @property
    def ranges(self) -> Ranges:
        """Of the layers that are computed with 8-bit numbers; see `adapter.quantization`."""
        return self._ranges

    def quantize(self, ranges: Ranges, store: GraphStore | None = None) -> None:
        """Take ranges that were measured on these weights, and where graphs of both are kept."""
        with self._lock:
            self._store = store
            self._ranges, self._measured = dict(ranges), tuple(_state(self._modules().values()))
            self._graphs.clear()

    @contextmanager
    def measuring(self) -> Iterator[Ranges]:
        """Let torch compute the network, and take the ranges that it shows, while the context is open."""
        ranges: Ranges = {}
        self._measuring = ranges
        try:
            yield ranges
        finally:
            self._measuring = None

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
        if self._measuring is not None:
            with measuring(self._modules(), self._measuring):
                return function(*args, **kwargs)
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
            modules = self._current()
            rows = [self._row(name, function, call, modules, row) for row in range(len(first))]
        joined = [
            torch.cat(parts) if parts[0].dim() else parts[0] for parts in zip(*(out for out, _ in rows), strict=True)
        ]
        if call.ran is not None:
            call.ran.extend(rows[0][1].found.ran)
        return pytree.tree_unflatten(joined, rows[0][1].found.answer)

    def _row(
        self, name: str, function: Callable[..., Any], call: _Call, modules: Mapping[str, nn.Module], row: int
    ) -> tuple[list[Tensor], _Graph]:
        """One batch element, and the graph that it took."""
        batch = len(call.tensors[0])
        tensors = [t[row : row + 1] if t.dim() and len(t) == batch else t for t in call.tensors]
        key = (name, call.structure, call.constants, tuple((tuple(t.shape), t.dtype) for t in tensors))
        if key not in self._graphs:
            while len(self._graphs) >= GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[key] = self._kept(str(key)) or self._made(str(key), modules, function, call, tensors)
        self._graphs.move_to_end(key)
        return self._graphs[key](tensors), self._graphs[key]

    def _kept(self, key: str) -> _Graph | None:
        """A graph that was made of the same weights before."""
        if self._store is None or self._measured != self._state:
            return None
        found = self._store.read(self._of_device(key))
        if found is None:
            return None
        facts, content = found
        try:
            compiled = self._core.import_model(self._tensor(content), self._device, self._properties())
        except RuntimeError:  # of other drivers
            return None
        dtypes = [getattr(torch, name) for name in facts["dtypes"]]
        found_before = _Found(dtypes, pytree.treespec_loads(facts["answer"]), facts["ran"])
        return _Graph(compiled.create_infer_request(), facts["inputs"], found_before)

    def _keep(self, key: str, compiled: Any, graph: _Graph) -> None:
        if self._store is None or self._measured != self._state:
            return
        try:
            answer, content = pytree.treespec_dumps(graph.found.answer), compiled.export_model().getvalue()
        except (NotImplementedError, RuntimeError):  # an answer of a kind of its own; a device that exports nothing
            return
        dtypes = [str(dtype).rpartition(".")[2] for dtype in graph.found.dtypes]
        facts = {"inputs": list(graph.inputs), "dtypes": dtypes, "answer": answer, "ran": graph.found.ran}
        self._store.write(self._of_device(key), facts, content)

    def _of_device(self, key: str) -> str:
        """A graph's key, and all that it depends on besides weights."""
        devices = self._of_devices("FULL_DEVICE_NAME")
        properties = sorted(self._properties().items())
        return str((key, self._version, self._device, devices, properties, self.structure()))

    def structure(self) -> str:
        """What the network is besides weights, the same in every process: kinds of modules and what is set on them."""
        return str([list(_structure(part)) for root in self._modules().values() for part in root.modules()])

    def _properties(self) -> dict[str, Any]:
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()} if self._device == "CPU" else {}
        usual = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self._hint()}
        return {**usual, **threads, **self._config}

    def _made(
        self,
        key: str,
        modules: Mapping[str, nn.Module],
        function: Callable[..., Any],
        call: _Call,
        tensors: Sequence[Tensor],
    ) -> _Graph:
        parts = list(modules.values())
        ranges = self._ranges if self._measured == self._state else {}
        traced = _Traced(parts, function, call, [t.dtype for t in tensors])
        # Values do not matter; tensors of inference mode could not be exported.
        with torch.inference_mode(False), torch.no_grad(), _untouched(parts), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            examples = tuple(torch.zeros(t.shape, dtype=_taken(t.dtype)) for t in tensors)
            with quantized(modules, ranges):
                exported = torch.export.export(traced, examples)
            model = self._convert(exported)
        places = {name: place for place, name in enumerate(exported.graph_signature.user_inputs)}
        inputs = [place for port in model.inputs for name, place in places.items() if name in port.names]
        model.reshape({port: list(examples[place].shape) for port, place in zip(model.inputs, inputs, strict=True)})
        compiled = self._core.compile_model(model, self._device, self._properties())
        graph = _Graph(compiled.create_infer_request(), inputs, traced.found)
        self._keep(key, compiled, graph)
        return graph

    def _map_sizes(self, sample: Tensor) -> list[tuple[int, int]]:
        height, width = sample.shape[-2:]
        return self._backbone.map_sizes(self._network, height, width)

    def _modules(self) -> dict[str, nn.Module]:
        """The network, and the adapter on it."""
        carried = graft_on(self._network)
        adapter = None if carried is None or carried.owner.adapter is None else carried.owner.adapter()
        return {"unet": self._network} | ({} if adapter is None else {"adapter": adapter})

    def _current(self) -> dict[str, nn.Module]:
        """The same; graphs of what they were before are dropped."""
        modules = self._modules()
        state = tuple(_state(modules.values()))
        if state != self._state:
            self._graphs.clear()
            self._state = state
            if self.precision == "int8" and state != self._measured:
                warnings.warn(
                    "openvino: weights or settings of the network are others than those that int8 was measured for, so "
                    "it is computed without; enable_openvino(precision='int8') measures anew",
                    stacklevel=2,
                )
        return modules


class _Found:
    """What is seen while a function is exported. No container, of which an export would put back a copy.

    Attributes:
        dtypes: of what it returns.
        answer: where that belongs.
        ran: the gated layers.
    """

    def __init__(self, dtypes: Iterable[torch.dtype] = (), answer: Any = None, ran: Iterable[str] = ()) -> None:
        self.dtypes, self.answer, self.ran = list(dtypes), answer, list(ran)


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

    def __repr__(self) -> str:
        return "tensor"


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


def _state(modules: Iterable[nn.Module]) -> Iterator[Any]:
    """All that a graph of modules depends on and that may change: weights, what is set on modules, hooks."""
    for module in (part for root in modules for part in root.modules()):
        for weights in (*module._parameters.values(), *module._buffers.values()):
            if weights is not None:
                yield weights.data_ptr(), 0 if weights.is_inference() else weights._version
        yield from _structure(module)


def _structure(module: nn.Module) -> Iterator[Any]:
    """All of it but weights: the same in every process."""
    if type(module) not in _PLAIN:
        yield type(module), _settings(module), _settings(getattr(module, "processor", None))
    yield len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module)


def _settings(thing: Any) -> tuple[Any, ...]:
    """What is set on a module, or on a processor of its attention, as plain values."""
    if thing is None:
        return ()
    values = vars(thing).items()
    return (type(thing), *((k, _written(v)) for k, v in values if k not in _OF_EVERY_MODULE and _simple(v)))


def _written(value: Any) -> str:
    """A plain value as text that is the same in every process."""
    if isinstance(value, dict):
        return repr(sorted(repr(item) for item in value.items() if item[0] not in _ORIGIN))
    return repr(sorted(map(repr, value)) if isinstance(value, set) else value)


def _simple(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_simple, value.values()))
    return all(map(_simple, value)) if isinstance(value, list | tuple | set) else isinstance(value, _SIMPLE)
