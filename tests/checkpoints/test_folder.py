"""Folders of weights say what is in them, and nothing of the machine they were made on."""

import json

import pytest

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.checkpoints import model_defaults, write_adapter
from instancediffusion.checkpoints.folder import save_part
from instancediffusion.errors import ModelError
from instancediffusion.settings import GenerationSettings
from tests.tiny_pipeline import tiny_pipeline


def test_no_configuration_names_the_folder_that_a_part_was_loaded_from(tmp_path):
    pipeline = tiny_pipeline(tmp_path / "tokenizer_of")
    home = tmp_path / "home_of_somebody"
    for name in ("vae", "adapter"):
        getattr(pipeline, name).save_pretrained(home / name)
    vae = type(pipeline.vae).from_pretrained(home / "vae")
    adapter = InstanceAdapter.from_pretrained(home / "adapter")
    # Libraries remember where they loaded from, and would write it down.
    assert any("home_of_somebody" in str(part.config.get("_name_or_path")) for part in (vae, adapter))

    save_part(vae, tmp_path / "out" / "vae")
    write_adapter(adapter, tmp_path / "out" / "adapter")
    for name in ("vae", "adapter"):
        text = (tmp_path / "out" / name / "config.json").read_text(encoding="utf-8")
        assert "home_of_somebody" not in text
        # All else is there.
        before = json.loads((home / name / "config.json").read_text(encoding="utf-8"))
        assert json.loads(text) == {key: value for key, value in before.items() if key != "_name_or_path"}


def test_what_a_model_states_as_best_is_read_without_loading_it(tmp_path):
    with pytest.raises(ModelError, match=r"holds no model_index\.json; give the folder"):
        model_defaults(tmp_path)
    index = tmp_path / "model_index.json"
    for damaged in ('{"default_settings": {', "[]"):
        index.write_text(damaged)
        with pytest.raises(ModelError, match=r"model_index\.json is damaged"):
            model_defaults(tmp_path)
    index.write_text('{"default_settings": {"num_inference_steps": 7}}')
    assert model_defaults(tmp_path) == GenerationSettings(num_inference_steps=7)
    assert model_defaults(index) == GenerationSettings()  # a model in one file states nothing
