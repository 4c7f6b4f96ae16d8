"""int8 by OpenVINO: near the pictures of torch, the same again, and nothing left of it when it is turned off."""

import copy
import resource
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from instancediffusion.adapter.openvino import OpenVINOCall
from instancediffusion.choices import precision_fact
from instancediffusion.errors import SettingsError
from instancediffusion.pipeline import InstanceDiffusionPipeline
from instancediffusion.pipeline.calibration import _key as key_of
from instancediffusion.pipeline.calibration import _read as read_ranges
from instancediffusion.pipeline.calibration import calibrate_anew, calibration_scenes
from instancediffusion.pipeline.kept_graphs import KeptGraphs
from instancediffusion.pipeline.opening import open_pipeline
from tests.tiny import tiny_unet
from tests.tiny_pipeline import scene_of, tiny_pipeline

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


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    """With a network of one transformer, whose graphs are made in a few seconds."""
    blocks = {"block_out_channels": (32,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    return tiny_pipeline(tmp_path_factory.mktemp("tokenizer"), tiny_unet(**blocks))


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
    calibrate_anew(own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OpenVINOCall.of(own.unet)._current()
    own.disable_openvino()
    assert torch.equal(latents(own), latents(pipe))


def test_precisions_by_name(own):
    pytest.importorskip("openvino")
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16"), (None, "f32")):
        own.enable_openvino(precision=precision)
        assert OpenVINOCall.of(own.unet)._properties()["INFERENCE_PRECISION_HINT"] == hint
    own.to(torch.bfloat16)  # the type of the weights is that of the call, not of when it was asked for
    assert OpenVINOCall.of(own.unet)._properties()["INFERENCE_PRECISION_HINT"] == "bf16"
    own.to(torch.float32).enable_openvino("AUTO:CPU", precision="int8", calibration=scene_of(1))
    assert precision_fact("openvino:GPU:int8") == {"precision": "int8"} and not precision_fact("openvino:GPU")
    for wrong, words in (
        ({"precision": "int4"}, "'int4' is none of float32, bfloat16, float16, int8"),
        ({"calibration": [scene_of(1)]}, "for precision='int8' alone"),
        ({"precision": "int8", "calibration": []}, "there is no scene"),
        ({"precision": "int8", "calibration": "scene.json"}, r"calibration\[0\]: expected a Scene, got a str"),
        ({"precision": "int8", "device": "AUTO:NPU9"}, "no 'AUTO:NPU9' here"),
    ):
        with pytest.raises(SettingsError, match=words):
            own.enable_openvino(**wrong)
    own.unet.config.encoder_hid_dim_type = "ip_image_proj"
    with pytest.raises(SettingsError, match="without pictures for an IP-Adapter"):
        own.enable_openvino(precision="int8")


def test_what_is_kept_is_found_by_other_processes(own, tmp_path):
    """Where a model lies, and the order in which Python tells what it has defaults for, are no part of its marks."""
    pytest.importorskip("openvino")
    own.save_pretrained(tmp_path / "model")
    keys = set()
    for order in (1, -1):
        read = InstanceDiffusionPipeline.from_pretrained((tmp_path / "model").rename(tmp_path / f"model{order}"))
        for part in read.unet.modules():
            if hasattr(part, "register_to_config"):
                part.register_to_config(_use_default_values=["sample_size", "dropout"][::order])
        keys.add(key_of(read, OpenVINOCall(read.unet, precision="int8"), calibration_scenes()))
        (tmp_path / f"model{order}").rename(tmp_path / "model")
    assert len(keys) == 1
    read.scheduler = type(read.scheduler).from_config(read.scheduler.config, beta_end=0.02)
    keys.add(key_of(read, OpenVINOCall(read.unet, precision="int8"), calibration_scenes()))
    read.unet.mid_block.resnets[0].output_scale_factor = 2.0
    keys.add(key_of(read, OpenVINOCall(read.unet, precision="int8"), calibration_scenes()))
    assert len(keys) == 3


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
    whole = path.read_bytes()
    for damaged in (whole[:-3], whole[:-1] + b"?", b""):
        path.write_bytes(damaged)
        assert kept.read("a") is None
    save_file({"graph": np.zeros(3, np.uint8)}, path)  # not of ours
    assert kept.read("a") is None
    save_file({"unet.conv_in.low": np.zeros(3, np.float32)}, tmp_path / "ranges.safetensors")  # without its other end
    assert read_ranges(tmp_path / "ranges.safetensors") is None
    (tmp_path / "ranges.safetensors").unlink()
    for key in "bcd":
        kept.write(key, {}, b"graph")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    KeptGraphs(tmp_path / "file").write("a", {}, b"graph")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))  # as on a disk that is full
    try:
        KeptGraphs(tmp_path / "cache").write("a", {}, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "cache").iterdir())


def test_commands_open_models_with_it(own, pipe, tmp_path):
    pytest.importorskip("openvino")
    pipe.save_pretrained(tmp_path / "model")

    class Halved:
        """An addition that changes weights, as LoRA files do."""

        def load(self, pipeline):
            with torch.no_grad():
                pipeline.unet.conv_out.weight.mul_(0.5)

    opened = open_pipeline(tmp_path / "model", device="openvino:CPU:int8", additions=Halved(), bars=False)
    call = OpenVINOCall.of(opened.unet)
    assert len(call.ranges) > 10
    measured = key_of(opened, call, calibration_scenes())  # of what is drawn with, additions included
    assert [path.stem for path in (tmp_path / "cache" / "int8").iterdir()] == [measured]
