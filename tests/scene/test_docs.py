"""What the page about scenes shows is true."""

import json
import re
from pathlib import Path
from unittest.mock import patch

import pytest

from instancediffusion.scene import LOCATIONS, Scene
from instancediffusion.scene.formats.scene_format import FORMATS

PAGE = Path("docs/scenes.md")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with patch.dict(FORMATS), patch.dict(LOCATIONS):  # what the page registers is gone again for other tests
        exec(compile(code, str(PAGE), "exec"), {})  # noqa: S102 - our own page


@pytest.mark.parametrize("content", blocks("json"))
def test_scene_files_load(content):
    assert len(Scene.from_dict(json.loads(content)).instances) == 4
