"""The example: publish a pipeline, then use it by its name with a LoRA, a ControlNet, and to edit a picture."""

import json

import pytest

from tests.conftest import ROOT
from tests.hub.server import LoopbackHub
from tests.hub.test_hub import run
from tests.tiny_pipeline import tiny_pipeline

SCENE = {
    "version": 1, "prompt": "things", "width": 64, "height": 64,
    "instances": [{"caption": "a cat", "box": [32, 40, 56, 64]}, {"caption": "a dog", "box": [40, 0, 64, 24]}],
}  # fmt: skip


@pytest.mark.slow
def test_publish_draw_and_edit(tmp_path):
    pytest.importorskip("peft")
    pipe = tiny_pipeline(tmp_path / "vocabulary")
    pipe.save_pretrained(tmp_path / "saved")
    (tmp_path / "scene.json").write_text(json.dumps(SCENE))
    (tmp_path / "repositories").mkdir()
    hub = LoopbackHub(tmp_path / "repositories")
    try:
        script = ROOT / "examples" / "publish_and_edit.py"
        told = run(hub, tmp_path, [script, tmp_path / "saved", "me/tiny", tmp_path / "scene.json", tmp_path / "work"])
    finally:
        hub.close()
    assert "edited; the rest is the same to the pixel" in told
    record = json.loads((tmp_path / "work" / "edited" / "manifest.json").read_text())["items"]["moved_1"]["record"]
    assert record["model"]["lora"][0]["weight"] == 0.8
    assert len(record["model"]["edit"]["sha256"]) == len(record["model"]["control"][0]["picture"]["sha256"]) == 64
    assert record["seed"] == 1
