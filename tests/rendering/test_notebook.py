"""How scenes show themselves in notebooks, and lettering in other scripts."""

import io
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from PIL import Image, ImageFont

from instancediffusion import Box, Instance, Scene
from instancediffusion.rendering import fonts, render_overlay
from instancediffusion.rendering.notebook import images_html, images_png

CASTLE = Scene('a "castle" <at> night', (Instance("a castle & moat", box=Box(0.1, 0.2, 0.9, 0.9)),), 64, 48)


def test_a_scene_shows_its_overlay():
    with Image.open(io.BytesIO(CASTLE._repr_png_())) as image:
        assert image.format == "PNG" and image.width >= 384
    shown = ET.fromstring(CASTLE._repr_html_())
    assert shown.get("aria-label") == CASTLE.prompt
    assert "castle &amp; moat" in CASTLE._repr_html_()


def test_scenes_need_no_pillow_until_they_are_shown():
    program = "import sys, instancediffusion.scene; assert 'instancediffusion.rendering' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_pictures_show_side_by_side():
    images = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue")]
    with Image.open(io.BytesIO(images_png(images, ["seed 0", "seed 1"]))) as sheet:
        assert sheet.width >= 64
    with Image.open(io.BytesIO(images_png(images[:1], ["seed 0"]))) as alone:
        assert alone.size == (32, 24)
    assert images_png([], []) is None
    shown = ET.fromstring(images_html(images, [CASTLE, CASTLE], ["seed 0", "<1>"]))
    assert [figure.text for figure in shown.iter("figcaption")] == ["seed 0", "<1>"]
    assert [image.get("title") for image in shown.iter("img")] == ["a castle & moat"] * 2


@pytest.fixture
def cyrillic():
    """A face of this machine that has Cyrillic letters."""
    path = fonts._path_for("Мед")
    if path is None:
        pytest.skip("no typeface with Cyrillic letters is installed")
    return path


def test_letters_that_pillows_face_lacks_are_taken_from_the_system(cyrillic, monkeypatch):
    """Captions in other scripts were once boxes."""
    assert fonts._path_for("") is None and fonts._path_for("…“") is None
    drawn = fonts.face_for("Медведь", 16).getmask("М")
    assert bytes(drawn) == bytes(ImageFont.truetype(cyrillic, 16).getmask("М"))
    assert bytes(drawn) != bytes(fonts.face_for("Медведь", 16).getmask("\ue123"))
    scene = Scene("Медведь", (Instance("Медведь", box=Box(0, 0, 1, 1)),), 64, 64)
    lettered = render_overlay(scene).tobytes()
    monkeypatch.setattr(fonts, "_path_for", lambda letters: None)
    assert render_overlay(scene).tobytes() != lettered


def test_the_typeface_can_be_chosen(cyrillic, tmp_path):
    plain = render_overlay(CASTLE)
    assert render_overlay(CASTLE, font=cyrillic).tobytes() != plain.tobytes()
    assert render_overlay(CASTLE).tobytes() == plain.tobytes()  # the choice ends with the call
    (tmp_path / "a.ttf").write_bytes(b"no typeface")
    with pytest.raises(ValueError, match=r"a\.ttf is no typeface"):
        render_overlay(CASTLE, font=tmp_path / "a.ttf")
