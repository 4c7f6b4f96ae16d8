"""int8 by OpenVINO: near the pictures of torch, the same again, and nothing left of it when it is turned off."""

import copy

import pytest
import torch

from instancediffusion.adapter.openvino import OpenVINOCall
from instancediffusion.errors import SettingsError
from instancediffusion.pipeline import InstanceDiffusionPipeline
from instancediffusion.pipeline.kept_graphs import KeptGraphs
from instancediffusion.pipeline.opening import open_pipeline
from tests.tiny_pipeline import scene_of

CALL = {"num_inference_steps": 4, "guidance_scale": 2.0, "scheduler": "ddim", "mis_fraction": 0.0, "seed": 0}
CALL |= {"grounding_fraction": 1.0}  # one graph
ERROR = 0.15
"""Of the latents after four steps, root mean square, relative. Random weights are harder to round than trained ones."""


def latents(pipe, **options):
    return pipe(scene_of(3), **{**CALL, **options}, output_type="latent").latents


def error(found, expected):
    return float((found - expected).norm() / expected.norm())


def layers_of_eight_bits(call):
    """Kinds of layers that OpenVINO computes with 8-bit numbers."""
    graph = next(iter(call._graphs.values())).request.get_compiled_model().get_runtime_model()
    facts = [
        {name: str(op.rt_info[name].astype(str)) for name in ("layerType", "runtimePrecision")}
        for op in graph.get_ops()
        if "layerType" in op.rt_info
    ]
    return {fact["layerType"] for fact in facts if fact["runtimePrecision"] in ("i8", "u8")}


@pytest.fixture
def own(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("INSTANCEDIFFUSION_CACHE", str(tmp_path / "cache"))
    return copy.deepcopy(pipe)


@pytest.mark.slow
def test_pictures_are_near_those_of_torch(own, pipe, tmp_path, monkeypatch):
    """With 8-bit layers indeed, the same every time, and from what was measured before without measuring again."""
    pytest.importorskip("openvino")
    expected = latents(pipe)
    scenes = [scene_of(1), scene_of(3)]
    own.enable_openvino(precision="int8", calibration=scenes)
    found = latents(own)
    assert 1e-4 < error(found, expected) < ERROR
    call = OpenVINOCall.of(own.unet)
    assert layers_of_eight_bits(call) >= {"Convolution", "FullyConnected"}
    assert torch.equal(latents(own), found)
    assert {path.suffix for path in (tmp_path / "cache" / "int8").iterdir()} == {".safetensors", ".graph"}

    def unasked(*_, **__):
        raise AssertionError("what is kept is made again")

    with monkeypatch.context() as patch:
        patch.setattr(InstanceDiffusionPipeline, "__call__", unasked)
        own.enable_openvino(precision="int8", calibration=scenes)
    with monkeypatch.context() as patch:
        patch.setattr(OpenVINOCall, "_made", unasked)
        assert torch.equal(latents(own), found)

    with torch.no_grad():
        own.unet.conv_out.weight.mul_(0.5)
        pipe = copy.deepcopy(own)
    with pytest.warns(UserWarning, match="others than those that int8 was measured for, so it is computed without"):
        changed = latents(own)
    assert error(changed, latents(pipe)) < ERROR / 2
    own.disable_openvino()
    assert torch.equal(latents(own), latents(pipe))


def test_precisions_by_name(own):
    pytest.importorskip("openvino")
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16"), (None, "f32")):
        own.enable_openvino(precision=precision)
        assert OpenVINOCall.of(own.unet)._config == {"INFERENCE_PRECISION_HINT": hint}
    for wrong, words in (
        ({"precision": "int4"}, "'int4' is none of float32, bfloat16, float16, int8"),
        ({"calibration": [scene_of(1)]}, "for precision='int8' alone"),
        ({"precision": "int8", "calibration": []}, "there is no scene"),
    ):
        with pytest.raises(SettingsError, match=words):
            own.enable_openvino(**wrong)


def test_a_measurement_that_fails_leaves_all_as_it_was(own, pipe):
    pytest.importorskip("openvino")
    broken = own.text_encoder
    own.text_encoder = None
    with pytest.raises(Exception, match="text_encoder"):
        own.enable_openvino(precision="int8")
    own.text_encoder = broken
    assert OpenVINOCall.of(own.unet) is None and torch.equal(latents(own), latents(pipe))


def test_graphs_are_kept_for_their_weights_and_damaged_ones_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr("instancediffusion.pipeline.kept_graphs.MOST", 2)
    kept, other = KeptGraphs(tmp_path, "weights"), KeptGraphs(tmp_path, "others")
    kept.write("a", {"inputs": [1, 0]}, b"graph")
    facts, content = kept.read("a")
    assert facts == {"inputs": [1, 0]} and content.tobytes() == b"graph"
    assert other.read("a") is None and kept.read("b") is None
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    assert kept.read("a") is None
    for key in "bcd":
        kept.write(key, {}, b"graph")
    assert len(list(tmp_path.iterdir())) == 2


def test_commands_open_models_with_it(own, pipe, tmp_path):
    pytest.importorskip("openvino")
    pipe.save_pretrained(tmp_path / "model")
    opened = open_pipeline(tmp_path / "model", device="openvino:CPU:int8", bars=False)
    assert len(OpenVINOCall.of(opened.unet).ranges) > 10
