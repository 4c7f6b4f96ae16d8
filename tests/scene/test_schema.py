"""The JSON Schema: valid, current, and of one mind with the reader."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from instancediffusion.scene import json_schema

from .strategies import scenes
from .test_native import FAULTS, GOOD, changed

SCHEMA = Draft202012Validator(json_schema())
COMMITTED = Path("docs/scene-v1.schema.json")


def test_it_is_a_schema():
    Draft202012Validator.check_schema(json_schema())


def test_the_committed_copy_is_current():
    assert json.loads(COMMITTED.read_text()) == json_schema(), (
        f"run: instancediffusion scene schema > {COMMITTED}"
    )  # fmt: skip


@pytest.mark.parametrize("path", sorted(Path("examples").glob("*.json")), ids=lambda path: path.stem)
def test_examples_keep_to_it(path):
    SCHEMA.validate(json.loads(path.read_text()))


@settings(max_examples=40)
@given(scenes())
def test_what_is_written_keeps_to_it(scene):
    SCHEMA.validate(json.loads(json.dumps(scene.to_dict())))


# What depends on several values at once is beyond a schema.
BEYOND = ("area", "canvas", "add up", "pixel", "every point", "outside the", "middle of", "looks like", "height comes",
          "256", "write [60", "write [300", "outside", "NaN", "infinite")  # fmt: skip


@pytest.mark.parametrize(("steps", "value", "path", "says"), FAULTS)
def test_it_finds_the_faults_a_schema_can_find(steps, value, path, says):
    assert SCHEMA.is_valid(GOOD)
    if not any(word in says for word in BEYOND):
        assert not SCHEMA.is_valid(changed(*steps, to=value)), path
