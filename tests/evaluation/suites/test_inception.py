"""The features of published FID figures, from a TorchScript file of the same form."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from instancediffusion.cli import cli
from instancediffusion.errors import ModelError
from instancediffusion.evaluation.suites.inception import Inception

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Layers(torch.nn.Module):
    """Where Inception's layers are: the mean and the first pixel of each channel."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([pixels.mean([2, 3]), pixels[:, :, 0, 0]], 1)[:, :, None, None]


class Whole(torch.nn.Module):
    """The file's own `forward` resizes otherwise, and is not what clean-fid calls."""

    def __init__(self):
        super().__init__()
        self.layers = Layers()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not this one")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception-2015-12-05.pt"
    torch.jit.save(torch.jit.script(Whole()), path)
    return path


def test_features_are_of_the_picture_resized_in_32_bits(file):
    network = Inception(str(file))
    rng = np.random.default_rng(0)
    own = rng.integers(0, 256, (299, 299, 3), dtype=np.uint8)
    expected = (own.astype(np.float64) - 128) / 128
    assert network(Image.fromarray(own)) == pytest.approx([*expected.mean((0, 1)), *expected[0, 0]], abs=1e-5)
    # A ramp that is enlarged is a ramp that is not rounded; a quantised resize would give whole numbers of 1/128.
    ramp = np.repeat(np.arange(100, 120, dtype=np.uint8)[None, :, None], 20, 0).repeat(3, 2)
    (red, *_), corner = network(Image.fromarray(ramp))[:3], network(Image.fromarray(ramp))[3]
    assert red == pytest.approx((109.5 - 128) / 128, abs=1e-4)
    assert 99 < corner * 128 + 128 < 100.5 and abs(corner * 128 - round(corner * 128)) > 0.01
    # A filter as wide as the step: a chequerboard that is reduced tenfold is even grey.
    board = np.indices((2990, 2990)).sum(0) % 2 * np.uint8(200)
    even = network(Image.fromarray(board.astype(np.uint8)))
    assert even == pytest.approx((100 - 128) / 128, abs=0.02)
    assert network.describe()["name"] == file.name and len(network.describe()["sha256"]) == 64


def test_other_files_are_refused(tmp_path):
    (tmp_path / "no.pt").write_bytes(b"no network")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "pickle.pt")
    torch.jit.save(torch.jit.script(Layers()), tmp_path / "other.pt")
    for name in ("no.pt", "pickle.pt", "other.pt"):
        with pytest.raises(ModelError, match=r"is not clean-fid's"):
            Inception(str(tmp_path / name))
    with pytest.raises(ModelError, match="there is no file"):
        Inception(str(tmp_path / "none.pt"))


def test_the_command_takes_the_file(file, tmp_path):
    rng = np.random.default_rng(1)
    for folder in ("made", "real"):
        (tmp_path / folder).mkdir()
        for number in range(6):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
            (tmp_path / folder / f"{number}.json").write_text(
                '{"version": 1, "prompt": "x", "width": 16, "height": 16, "instances": []}'
            )
    done = CliRunner().invoke(
        cli,
        ["evaluate", "--suite", "fid", "--features", str(file), "--images", str(tmp_path / "made"), "--scenes",
         str(tmp_path / "made"), "--real", str(tmp_path / "real"), "-o", str(tmp_path / "out"), "--device", "cpu"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "inception-2015-12-05.pt" in (tmp_path / "out" / "report.md").read_text()
