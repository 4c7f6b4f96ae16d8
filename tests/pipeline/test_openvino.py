"""The network by OpenVINO: the pictures of torch, whatever is asked of it. Graphs take seconds to make."""

import copy
import signal
import subprocess
import sys

import pytest
import torch

from instancediffusion.adapter.openvino import OpenVINOCall
from instancediffusion.errors import ModelError, SettingsError
from instancediffusion.pipeline.opening import open_pipeline
from tests.tiny_pipeline import scene_of

CALL = {"num_inference_steps": 4, "guidance_scale": 2.0, "scheduler": "ddim", "mis_fraction": 0.0, "seed": 0}


def latents(pipe, count=3, **options):
    return pipe(scene_of(count), **{**CALL, **options}, output_type="latent").latents


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_pictures_are_those_of_torch(pipe, monkeypatch):
    """With instances and without, any number of them, in batches, at any scale; weights that change are noticed."""
    pytest.importorskip("openvino")
    own, made = copy.deepcopy(pipe), []
    own.set_progress_bar_config(disable=True)
    make = OpenVINOCall._made
    monkeypatch.setattr(OpenVINOCall, "_made", lambda self, *given: made.append(given) or make(self, *given))
    layers = own.adapter._layers_by_path
    own.enable_openvino()
    for options in ({"grounding_fraction": 0.5}, {"grounding_fraction": 0.25, "grounding_decay_fraction": 0.5}):
        close(latents(own, **options), latents(pipe, **options))
    assert len(made) == 2  # with instances, and without
    assert own.adapter._layers_by_path is layers  # groundings tell by it that they are of one adapter
    batch = own([scene_of(1), scene_of(3)], **CALL, output_type="latent").latents
    close(batch, pipe([scene_of(1), scene_of(3)], **CALL, output_type="latent").latents)
    assert len(made) == 2
    assert OpenVINOCall.of(copy.deepcopy(own).unet) is None
    with torch.no_grad():
        for each in (own, copy.deepcopy(pipe)):
            each.unet.conv_out.weight.mul_(0.9)
    close(latents(own, grounding_fraction=1.0), latents(each, grounding_fraction=1.0))
    assert len(made) == 3
    own.disable_openvino()
    assert torch.equal(latents(own), latents(each))


@pytest.mark.slow
def test_deep_features_are_reused(pipe):
    pytest.importorskip("openvino")
    own = copy.deepcopy(pipe)
    own.enable_openvino(ov_config={"INFERENCE_NUM_THREADS": 1})
    options = {"cache_interval": 2, "grounding_fraction": 1.0}
    close(latents(own, **options), latents(pipe, **options))


def test_torch_computes_what_openvino_cannot_take_and_says_so(pipe):
    pytest.importorskip("openvino")
    own = copy.deepcopy(pipe)
    own.enable_openvino()
    options = {"mis_merge": "regional", "mis_fraction": 1.0, "guidance_scale": 1.0}
    with pytest.warns(UserWarning, match="mis_merge='regional' and token_merging do; torch computes it"):
        found = latents(own, **options)
    close(found, latents(pipe, **options))


def test_commands_open_models_with_it(pipe, tmp_path):
    pytest.importorskip("openvino")
    pipe.save_pretrained(tmp_path)
    opened = open_pipeline(tmp_path, device="openvino")
    assert OpenVINOCall.of(opened.unet) is not None and opened.device.type == "cpu"
    with pytest.raises(SettingsError, match="no 'NPU9' here"):
        open_pipeline(tmp_path, device="openvino:NPU9")


SIGNALLED = """
import faulthandler, gc, signal, subprocess, threading
faulthandler.enable()
import openvino, torch
from openvino import opset13
from torch import nn
from instancediffusion.adapter.openvino import OpenVINOCall
from tests.tiny import tiny_unet
call = OpenVINOCall(tiny_unet())
argument = opset13.parameter([1, 4], openvino.Type.f32)
held = [call._core.compile_model(openvino.Model([opset13.relu(argument)], [argument]), "CPU"), call]
del call
freed = threading.Thread(target=lambda: (held.clear(), gc.collect()))
freed.start(), freed.join()
signal.signal(signal.SIGCHLD, lambda *_: print("handled", flush=True))
subprocess.run(["true"])
print("alive")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="signals of another system")
def test_signals_are_handled_when_another_thread_has_let_go_of_it(repository):
    """A test process died, of no message, of a child that ended long after the tests of OpenVINO.

    OpenVINO had put the stack for signal handlers of the thread that loaded it into memory that it took back.
    """
    pytest.importorskip("openvino")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SIGNALLED], cwd=repository, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout.split()) == (0, ["handled", "alive"]), ran.stderr


def test_what_cannot_be_had_is_said(pipe, monkeypatch):
    own = copy.deepcopy(pipe)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        with pytest.raises(ModelError, match=r"pip install 'instancediffusion\[openvino\]'"):
            own.enable_openvino()
    pytest.importorskip("openvino")
    with pytest.raises(SettingsError, match=r"no 'NPU9' here; it has .*CPU"):
        own.enable_openvino("NPU9")
    own.enable_openvino()
    noisy = torch.zeros(1, 4, 16, 16, device="meta")
    with torch.no_grad(), pytest.raises(ModelError, match="these are on meta"):
        own.unet(noisy, 5, torch.zeros(1, 4, 32, device="meta"))
