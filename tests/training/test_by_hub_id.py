"""What `train` and `convert` wrote, uploaded as it is, loads by its hub id: from a server on this machine."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from tests.hub.client import draw
from tests.hub.server import LoopbackHub
from tests.hub.test_hub import run
from tests.ldm import single_file
from tests.tiny_pipeline import tiny_pipeline

from instancediffusion.cli.convert import convert

NAMES = ("trained", "converted")
SCRIPT = "import json, sys; from tests.hub.client import draw; print(json.dumps([draw(name) for name in sys.argv[1:]]))"


@pytest.mark.slow
def test_what_train_and_convert_wrote_loads_by_hub_id(exported, tmp_path):
    served = tmp_path / "repositories" / "me"
    shutil.copytree(exported / "export", served / "trained")
    pipe = tiny_pipeline(tmp_path / "characters")
    pipe.tokenizer.save_pretrained(tmp_path / "words")
    pipe.adapter.save_pretrained(tmp_path / "adapter")
    pipe.adapter.remove()
    save_file(single_file(pipe.unet, pipe.vae, pipe.text_encoder), tmp_path / "one.safetensors")
    given = [tmp_path / "one.safetensors", served / "converted", "--adapter", tmp_path / "adapter"]
    made = CliRunner().invoke(convert, [*map(str, given), "--tokenizer", str(tmp_path / "words"), "--num-heads", "4"])
    assert made.exit_code == 0, made.output
    hub = LoopbackHub(tmp_path / "repositories")
    try:
        told = run(hub, tmp_path, ["-c", SCRIPT, *(f"me/{name}" for name in NAMES)])
    finally:
        hub.close()
    for name, found in zip(NAMES, json.loads(told.splitlines()[-1]), strict=True):
        expected = torch.tensor(draw(served / name))
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(torch.tensor(found), expected, atol=1e-4, rtol=1e-5)
