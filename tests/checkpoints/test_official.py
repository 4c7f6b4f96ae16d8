"""Loading the published layout: safely, strictly, and with nothing left to guess."""

import os
import pickle
import re
import sys
import types

import pytest
import torch
from click.testing import CliRunner

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints import load_official, weights_sha256
from instancediffusion.cli.convert import convert
from instancediffusion.errors import CheckpointError
from tests.golden.checkpoint import hollow, published_checkpoint


@pytest.fixture(scope="module")
def groups():
    """All tensors of the published layout; what is in them does not matter here."""
    return hollow(published_checkpoint())


@pytest.fixture
def save(tmp_path):
    def write(content):
        path = tmp_path / "checkpoint.pth"
        torch.save(content, path)
        return path

    return write


class Hostile:
    def __reduce__(self):
        return os.mkdir, (os.environ["HOSTILE_TARGET"],)


def test_hostile_pickle_is_refused_without_executing(groups, save, tmp_path, monkeypatch):
    target = tmp_path / "executed"
    monkeypatch.setenv("HOSTILE_TARGET", str(target))
    path = save({**groups, "config_dict": Hostile()})
    with pytest.raises(CheckpointError, match=r"posix\.mkdir"):
        load_official(path, num_heads=4)
    assert not target.exists()
    torch.load(path, weights_only=False)  # the same file does act where it is trusted
    assert target.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "subprocess.Popen", "torch.hub.load", "numpy.load"])
def test_any_other_global_is_refused_by_name(groups, save, name):
    module, attribute = name.rsplit(".", 1)

    class Reference:
        def __reduce__(self):
            return getattr(__import__(module, fromlist=[attribute]), attribute), ("1",)

    with pytest.raises(CheckpointError, match="refused") as caught:
        load_official(save({**groups, "extra": Reference()}), num_heads=4)
    assert re.search(rf"\b{attribute}\b", str(caught.value))


def test_plain_pickle_is_refused(tmp_path):
    path = tmp_path / "plain.pth"
    path.write_bytes(pickle.dumps({"model": 1}))
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        load_official(path)


def test_published_config_objects_are_read_over(groups, save, monkeypatch):
    """The published file holds OmegaConf objects; they load without OmegaConf, as inert stand-ins."""
    package = types.ModuleType("omegaconf")
    module = types.ModuleType("omegaconf.dictconfig")

    class DictConfig:
        def __init__(self):
            self.content = {"seed": 1}

        def __getstate__(self):
            return self.__dict__

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    module.DictConfig = DictConfig
    monkeypatch.setitem(sys.modules, "omegaconf", package)
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    path = save({**groups, "config_dict": {"_content": {"diffusion": DictConfig()}}})
    monkeypatch.undo()
    assert "omegaconf" not in sys.modules
    load_official(path, num_heads=4)


def test_averaged_weights_are_preferred(groups, save):
    found = load_official(save({**groups, "ema": hollow(groups, 1.0)["model"]}), num_heads=4)
    assert all((value == 1).all() for value in found.unet.state_dict().values())


def test_sizes_are_read_off_the_tensors(published_file):
    found = load_official(published_file, num_heads=4)
    assert found.unet.config.block_out_channels == (32, 64, 64)
    assert found.unet.config.layers_per_block == 1
    assert found.unet.config.down_block_types == ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
    assert found.adapter.config.hidden_dim == 96
    assert found.adapter.config.segmentation["size"] == 512
    assert found.adapter.grafted
    assert found.text_encoder.config.num_attention_heads == 4


def test_every_tensor_is_used(groups, published_file):
    """Changing any one tensor of the file changes exactly one tensor of the loaded components."""
    found = load_official(published_file, num_heads=4)
    loaded = sum(
        len([name for name in part.state_dict() if not name.endswith(("position_ids", "z_order.weight"))])
        for part in (found.unet, found.adapter, found.vae, found.text_encoder)
    )
    assert loaded == sum(map(len, groups.values())) - 1  # all but position_ids


def drop(groups, group, name):
    return {**groups, group: {key: value for key, value in groups[group].items() if key != name}}


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("model", "out.2.bias"),
        ("model", "scaleu_s_3"),
        ("model", "position_net.linears_list.2.4.bias"),
        ("autoencoder", "decoder.norm_out.weight"),
        ("text_encoder", "transformer.text_model.final_layer_norm.bias"),
    ],
)
def test_a_missing_tensor_is_an_error(groups, save, group, name):
    with pytest.raises(CheckpointError, match="missing"):
        load_official(save(drop(groups, group, name)), num_heads=4)


def test_a_surplus_tensor_is_an_error(groups, save):
    surplus = {**groups["autoencoder"], "decoder.extra.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"unknown.*decoder\.extra"):
        load_official(save({**groups, "autoencoder": surplus}), num_heads=4)


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": {"a": torch.zeros(1)}}, {"model": 3}, [1]])
def test_other_layouts_are_refused(save, content):
    with pytest.raises(CheckpointError):
        load_official(save(content))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_official(tmp_path / "nothing.pth")


def test_convert_writes_safetensors_that_load_again(published_file, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(convert, [str(published_file), str(out), "--num-heads", "4"])
    assert result.exit_code == 0, result.output
    assert weights_sha256(out) in result.output
    assert not list(out.rglob("*.bin"))
    adapter = InstanceAdapter.from_pretrained(out / "adapter")
    expected = load_official(published_file, num_heads=4).adapter.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in adapter.state_dict().items())


def test_convert_adapter_only(published_file, tmp_path):
    out = tmp_path / "adapter"
    result = CliRunner().invoke(convert, [str(published_file), str(out), "--adapter-only", "--num-heads", "4"])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_convert_overwrites_nothing(groups, save, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    result = CliRunner().invoke(convert, [str(save(groups)), str(out), "--num-heads", "4"])
    assert result.exit_code != 0
    assert isinstance(result.exception, CheckpointError)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]
