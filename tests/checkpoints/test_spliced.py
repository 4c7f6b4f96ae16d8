"""The three files that ComfyUI's users have make the adapter of the checkpoint they were cut out of."""

import os
import shutil

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints import load_official, load_spliced, read_adapter
from instancediffusion.cli.convert import convert
from instancediffusion.errors import CheckpointError, ModelError
from tests.golden.checkpoint import hollow, published_checkpoint


@pytest.fixture(scope="module")
def unet():
    return published_checkpoint()["model"]


@pytest.fixture(scope="module")
def expected(published_file):
    return load_official(published_file, num_heads=4).adapter


def splice(unet, *, heads=4):
    """Cut the UNet of a published checkpoint as the splicing script does."""
    fusers = {}
    for name, value in unet.items():
        if ".fuser." not in name:
            continue
        place, rest = name.split(".transformer_blocks.0.fuser.")
        side, block = place.split(".")[:2]
        held = fusers.setdefault(side, {}).setdefault(block, {"params": {"n_heads": heads}, "state": {}})
        held["state"][rest] = value
    net = "position_net."
    positionnet = {name.removeprefix(net): value for name, value in unet.items() if name.startswith(net)}
    scaleu = {}
    for name, value in unet.items():
        if name.startswith("scaleu_"):
            _, part, step = name.split("_")
            scaleu.setdefault(step, {})[f"scaleu_{part}"] = value
    return {"fusers": fusers, "positionnet": positionnet, "scaleu": scaleu}


@pytest.fixture(scope="module")
def written(unet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spliced")
    for name, content in splice(unet).items():
        torch.save(content, folder / f"{name}.ckpt")
    return folder


@pytest.fixture
def files(written, tmp_path):
    """Links, which a test may rename and delete; the files are large."""
    folder = tmp_path / "models"
    folder.mkdir()
    for path in written.iterdir():
        os.link(path, folder / path.name)
    return folder


def same(found, expected):
    plain = [{name: tuple(v) for name, v in adapter.config.layer_shapes.items()} for adapter in (found, expected)]
    assert plain[0] == plain[1]
    assert list(found.config.scaleu_channels) == list(expected.config.scaleu_channels)
    for key in ("hidden_dim", "slots", "derive_locations", "published_mask_points"):
        assert found.config[key] == expected.config[key]
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_they_make_the_adapter_of_the_whole_file(files, expected):
    names = ["scaleu.ckpt", "fusers.ckpt", "positionnet.ckpt"]
    assert same(load_spliced([files / name for name in names]), expected)
    assert same(read_adapter(files), expected)
    for old, new in zip(names, "abc", strict=True):  # told apart by what they hold
        (files / old).rename(files / f"{new}.pt")
    assert same(read_adapter([files / "b.pt", files / "a.pt", files / "c.pt"]), expected)


def test_heads_are_those_the_fusers_state(unet, tmp_path):
    for name, content in splice(hollow({"model": unet})["model"], heads=2).items():
        torch.save(content, tmp_path / f"{name}.ckpt")
    assert {heads for _, heads in read_adapter(tmp_path).config.layer_shapes.values()} == {2}


def test_flat_safetensors_are_the_same(unet, tmp_path, expected):
    def flat(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            elif isinstance(value, torch.Tensor):
                yield f"{prefix}{name}", value.contiguous()

    for name, content in splice(unet).items():
        save_file(dict(flat(content)), tmp_path / f"{name}.safetensors")
    assert same(read_adapter(tmp_path), expected)


def test_a_part_that_is_missing_or_there_twice_is_named(files, tmp_path, unet):
    with pytest.raises(CheckpointError, match=r"positionnet and the scaleu are missing"):
        read_adapter(files / "fusers.ckpt")
    with pytest.raises(CheckpointError, match=r"holds the fusers, and so does"):
        load_spliced([files / "fusers.ckpt", files / "fusers.ckpt", files / "scaleu.ckpt"])
    cut = splice(unet)["fusers"]
    del cut["output_blocks"]["3"]["state"]["norm2.bias"]
    (files / "fusers.ckpt").unlink()
    torch.save(cut, files / "fusers.ckpt")
    with pytest.raises(CheckpointError, match=r"1 tensors are missing.*output|missing.*norm2\.bias"):
        read_adapter(files)
    with pytest.raises(ModelError, match="no weights"):
        (tmp_path / "empty").mkdir()
        read_adapter(tmp_path / "empty")


def test_convert_takes_the_files_or_their_folder(files, tmp_path, expected):
    for number, given in enumerate(([files], [files / f"{n}.ckpt" for n in ("positionnet", "scaleu", "fusers")])):
        out = tmp_path / f"out{number}"
        result = CliRunner().invoke(convert, [*map(str, given), str(out)])
        assert result.exit_code == 0, result.output
        assert same(InstanceAdapter.from_pretrained(out), expected)
        assert same(read_adapter(out), expected)
        shutil.rmtree(out)
