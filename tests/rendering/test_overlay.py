"""Overlays: everything asked for is drawn, labels keep clear of each other."""

import colorsys
import itertools
import re
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from instancediffusion.rendering import contact_sheet, render_overlay, render_overlay_svg
from instancediffusion.rendering.labels import LabelPlacer, Wish
from instancediffusion.rendering.painter import text_width
from instancediffusion.rendering.palette import instance_colour
from instancediffusion.rendering.wrap import shorten, wrap
from instancediffusion.scene import Box, Instance, Mask, Point, Scene, Scribble, load_scene

PANDA = load_scene("examples/panda_balloons.json")
CROWDED = load_scene("examples/rose_garden_painting.json")
SVG = "{http://www.w3.org/2000/svg}"


def pixels(scene, **options):
    return np.asarray(render_overlay(scene, (240, 240), legend=False, **options)).astype(int)


@pytest.mark.parametrize(
    ("place", "inside", "outside"),
    [
        ({"box": Box(0.25, 0.25, 0.75, 0.75)}, (60, 120), (120, 30)),
        ({"point": Point(0.5, 0.5)}, (120, 120), (160, 160)),
        ({"scribble": Scribble(((0.1, 0.5), (0.9, 0.5)))}, (120, 120), (140, 120)),
        ({"mask": Mask.from_array(np.tri(64) > 0)}, (200, 40), (40, 200)),
    ],
)
def test_every_kind_is_drawn_where_it_is(place, inside, outside):
    scene = Scene("p", (Instance("x", **place),), 64, 64)
    empty, drawn = pixels(Scene("p", (), 64, 64)), pixels(scene)
    changed = np.abs(empty - drawn).sum(axis=-1) > 20
    assert changed[inside]
    assert not changed[outside]


def test_the_canvas_keeps_its_shape():
    scene = Scene("p", (), 800, 400)
    assert render_overlay(scene, legend=False).size == (768, 384)
    assert render_overlay(scene, (100, 200), legend=False).size == (200, 100)
    assert render_overlay(scene).size[0] > 768
    with pytest.raises(ValueError, match="size"):
        render_overlay(scene, (0, 10))


def test_nearer_things_are_drawn_last():
    box = Box(0.2, 0.2, 0.8, 0.8)
    front = Instance("f", mask=Mask.from_array(np.ones((64, 64))), z_order=5)
    for order in ((0, 1), (1, 0)):
        items = [front, Instance("b", box=box, z_order=-5)]
        drawn = pixels(Scene("p", tuple(items[i] for i in order), 64, 64))
        colour = np.array(instance_colour(order.index(0)))
        edge = drawn[48 + 1, 160]  # the edge of the box behind, seen through the mask in front
        assert not (edge == instance_colour(order.index(1))).all()
        assert np.abs(drawn[20, 200] - (0.38 * colour + 0.62 * np.array([246, 246, 243]))).max() < 5


def test_a_background_shows_through():
    background = Image.new("RGB", (10, 10), (10, 200, 30))
    assert (pixels(Scene("p", (), 64, 64), background=background)[100, 100] == (10, 200, 30)).all()


def labels_of(scene, size=(512, 512)):
    """Return the label rectangles of an overlay, from its SVG."""
    root = ET.fromstring(render_overlay_svg(scene, size, legend=False))
    rects = [e for e in root.iter(f"{SVG}rect") if e.get("rx") == "4"]
    return [tuple(float(e.get(k)) for k in ("x", "y", "width", "height")) for e in rects]


@pytest.mark.parametrize(
    "name", ["rose_garden_painting", "corgi_kitchen", "iterative_r5", "panda_balloons", "palm_point"]
)
def test_labels_do_not_collide_and_stay_on_the_canvas(name):
    scene = load_scene(f"examples/{name}.json")
    rects = labels_of(scene)
    assert len(rects) == len(scene.instances)
    for (ax, ay, aw, ah), (bx, by, bw, bh) in itertools.combinations(rects, 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
    for x, y, width, height in rects:
        assert 0 <= x <= x + width <= 512
        assert 0 <= y <= y + height <= 512


def test_labels_of_one_place_spread():
    scene = Scene("p", tuple(Instance(f"thing {n}", point=Point(0.5, 0.5)) for n in range(28)), 512, 512)
    rects = labels_of(scene)
    assert len(set(rects)) == 28


def test_few_instances_have_their_captions_on_the_picture():
    text = " ".join(e.text for e in ET.fromstring(render_overlay_svg(PANDA, legend=False)).iter(f"{SVG}text"))
    assert all(instance.caption in text for instance in PANDA.instances)


def test_the_panel_lists_every_caption_nearest_first():
    texts = [e.text for e in ET.fromstring(render_overlay_svg(PANDA)).iter(f"{SVG}text")]
    panel = texts[texts.index(PANDA.prompt) :]
    listed = [text for text in panel if text in {i.caption for i in PANDA.instances}]
    assert listed == ["a blue balloon", "a panda", "a red balloon", "grass"]
    assert any(text.startswith("z 2") for text in panel)
    assert "no z order stated" in panel
    crowd = [e.text for e in ET.fromstring(render_overlay_svg(CROWDED)).iter(f"{SVG}text")]
    assert all(str(n + 1) in crowd for n in range(len(CROWDED.instances)))


def test_any_caption_gives_valid_svg():
    nasty = "<script>&\"'\x00\x08 ]]> \ud7ff \uffff \U0001f600 مرحبا\n\ttab"
    scene = Scene(nasty, (Instance(nasty, box=Box(0, 0, 1, 1)), Instance("w" * 5000, point=Point(0, 0))), 64, 64)
    root = ET.fromstring(render_overlay_svg(scene))
    assert not list(root.iter(f"{SVG}script"))
    assert not re.search("[\x00-\x08]", render_overlay_svg(scene))
    render_overlay(scene)


def test_a_thousand_instances_are_drawn_in_time():
    rng = np.random.default_rng(0)
    many = [Instance(f"thing {n}", point=Point(*rng.random(2)), z_order=n % 7) for n in range(1000)]
    began = time.process_time()
    picture = render_overlay(Scene("p", tuple(many), 512, 512))
    assert time.process_time() - began < 12
    assert picture.width * picture.height < 8_000_000


def test_colours_of_neighbours_differ():
    for index in range(60):
        a, b = instance_colour(index), instance_colour(index + 1)
        hues = [colorsys.rgb_to_hsv(*(c / 255 for c in colour))[0] for colour in (a, b)]
        assert 0.1 < abs(hues[0] - hues[1]) < 0.9


def test_a_full_picture_still_places_labels():
    placer = LabelPlacer((0, 0, 40, 20))
    rects = [placer.place(Wish([(30, 15)], (0, 0, 40, 20), (20, 10))).rect for _ in range(3)]
    assert all(0 <= r[0] and r[2] <= 40 and 0 <= r[1] and r[3] <= 20 for r in rects)


def test_text_is_broken_to_its_width():
    text = "a wide meadow under an enormous sky with a tiny house"
    lines = wrap(text, 120, 13, 10)
    assert " ".join(lines) == text
    assert all(text_width(line, 13) <= 120 for line in lines)
    assert wrap(text, 120, 13, 2)[-1].endswith("…")
    assert len(wrap("x" * 500, 100, 13, 3)) <= 3
    assert text_width(shorten(text, 80, 13), 13) <= 80
    assert wrap("", 100, 13, 3) == []


def test_contact_sheet():
    images = [Image.new("RGB", (40, 30), (n * 40, 0, 0)) for n in range(5)]
    sheet = contact_sheet(images, 3)
    assert sheet.size == (3 * 48 + 8, 2 * 38 + 8)
    assert sheet.getpixel((8 + 48 + 5, 8 + 5)) == (40, 0, 0)
    assert contact_sheet(images, 3, ["label"] * 5).height > sheet.height
    for bad in ([], 3), (images, 0):
        with pytest.raises(ValueError, match="picture"):
            contact_sheet(*bad)
    with pytest.raises(ValueError, match="labels"):
        contact_sheet(images, 2, ["one"])
