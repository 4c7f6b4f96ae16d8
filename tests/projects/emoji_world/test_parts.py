"""Recolouring, backgrounds, sprites, the art cache, the catalogue."""

import colorsys
import shutil
import subprocess
import sys

import numpy as np
import pytest
from skimage.color import rgb2lab

from instancediffusion.errors import SettingsError
from instancediffusion.projects.emoji_world import (
    BACKGROUNDS,
    COLOURS,
    CORE,
    KINDS,
    ArtError,
    ObjectKind,
    SpriteBook,
    World,
)
from instancediffusion.projects.emoji_world.art import art_file, build_art, draw_icon, load_art
from instancediffusion.projects.emoji_world.captions import vocabulary
from instancediffusion.projects.emoji_world.catalogue import FIRST_CORE
from instancediffusion.projects.emoji_world.colours import hue_saturation, recolour, tint_weight
from instancediffusion.projects.emoji_world.drawings import DRAWINGS


def test_hue_and_saturation_agree_with_the_standard_library():
    rgb = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    hue, saturation = hue_saturation(rgb)
    expected = np.array([colorsys.rgb_to_hsv(*map(float, pixel)) for pixel in rgb])
    assert hue / 360 == pytest.approx(expected[:, 0], abs=1e-4)
    assert saturation == pytest.approx(expected[:, 1], abs=1e-4)


@pytest.mark.parametrize("colour", COLOURS)
def test_of_all_named_colours_the_painted_one_is_the_nearest(art, colour):
    """By another library's measure, in a space where distances are those that people see."""
    inside = art["disc"][..., 3] > 0
    painted = recolour(art["disc"], (345, 15), colour)[inside][:, :3] / 255
    seen = np.median(rgb2lab(painted[None])[0], axis=0)
    distances = {name: np.linalg.norm(seen - rgb2lab(np.array(rgb)[None, None] / 255)) for name, rgb in COLOURS.items()}
    assert min(distances, key=distances.get) == colour


@pytest.mark.parametrize("colour", COLOURS)
def test_recolouring_has_the_hue_keeps_alpha_shade_and_other_parts(art, colour):
    disc = art["disc"].copy()
    disc[:, :16, :3] = (40, 160, 60)  # a leaf, which must stay
    painted = recolour(disc, (345, 15), colour)
    inside = disc[..., 3] > 0
    inside[:, :16] = False
    assert np.array_equal(painted[..., 3], disc[..., 3])
    assert np.array_equal(painted[:, :16], disc[:, :16])
    target = np.array(COLOURS[colour]) / 255
    hue, saturation = hue_saturation(painted[inside][:, :3].astype(np.float32) / 255)
    expected = colorsys.rgb_to_hsv(*target)
    if expected[1] > 0.2:
        assert np.abs((hue - expected[0] * 360 + 180) % 360 - 180).max() < 4
    else:
        assert saturation.max() < 0.12
    luma = painted[..., :3] @ np.array([0.299, 0.587, 0.114])
    assert luma[inside & (np.mgrid[:64, :64][0] < 30)].mean() > 1.1 * luma[inside & (np.mgrid[:64, :64][0] > 45)].mean()


def test_tint_wraps_through_red():
    rgb = np.array([[[1, 0, 0.1], [1, 0.1, 0], [1, 1, 0], [0.5, 0.5, 0.5]]], np.float32)
    assert tint_weight(rgb, (345, 15)).round(2).tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("background", BACKGROUNDS, ids=lambda b: b.name)
def test_backgrounds_are_pictures_that_vary_and_repeat(background):
    def draw(seed, height, width):
        return background.draw(np.random.Generator(np.random.PCG64(seed)), height, width)

    picture = draw(1, 48, 64)
    assert picture.shape == (48, 64, 3)
    assert picture.dtype == np.float32
    assert np.isfinite(picture).all()
    assert -40 < picture.min() <= picture.max() < 296
    assert np.array_equal(picture, draw(1, 48, 64))
    assert not np.array_equal(picture, draw(2, 48, 64))
    assert draw(0, 16, 16).shape == (16, 16, 3)


def test_stamps_are_tight_and_mirrored(art):
    book = SpriteBook([ObjectKind("arrow", "arrow", facing="left")], art)
    for longer in (5, 13, 40, 100):
        left, right = (book.stamp("arrow", None, side, longer) for side in ("left", "right"))
        assert max(left.mask.shape) == longer
        assert np.array_equal(left.mask, right.mask[:, ::-1])
        assert (left.paint <= 255 * (1 - left.clear) + 0.5).all()  # premultiplied


def test_what_a_kind_cannot_be_is_refused(art):
    book = SpriteBook([ObjectKind("box", "box")], art)
    with pytest.raises(SettingsError, match="no other colour"):
        book.stamp("box", "red", None, 20)
    with pytest.raises(SettingsError, match="no orientation"):
        book.stamp("box", None, "left", 20)
    with pytest.raises(SettingsError, match="mauve"):
        ObjectKind("box", "box", colour="mauve", colours=("mauve",), tint=(0, 10))
    with pytest.raises(SettingsError, match="go together"):
        ObjectKind("box", "box", colours=("red",), colour="red")
    with pytest.raises(SettingsError, match="lid"):
        ObjectKind("box", "box", parts={"lid": (0.2, 0.0, 0.1, 1.0)})


def test_parts_of_a_mirrored_kind_change_sides():
    kind = ObjectKind(
        "cat", "cat", facing="left", parts={"head": (0.0, 0.0, 0.5, 0.5), "left ear": (0.0, 0.0, 0.25, 0.25)}
    )
    assert kind.parts_facing("left") == kind.parts_facing(None) == kind.parts
    mirrored = kind.parts_facing("right")
    assert mirrored == {"head": (0.5, 0.0, 1.0, 0.5), "right ear": (0.75, 0.0, 1.0, 0.25)}


def test_the_catalogue_is_large_and_unambiguous():
    assert len(CORE) >= 145
    assert len(FIRST_CORE) == 132
    assert set(FIRST_CORE) < set(CORE)
    assert len(BACKGROUNDS) >= 20
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert len({kind.icon for kind in KINDS}) == len(KINDS)
    core = {kind.name: kind for kind in KINDS if kind.core}
    named = "dog cat panda donkey horse bird balloon apple pear vase flower rose tree mountain hut igloo chair table"
    assert {*named.split(), *"cake house castle car iceberg bench".split(), "polar bear", "teddy bear"} <= set(core)
    for name in "balloon car bird rose tulip apple pear vase".split():
        assert len(core[name].colours) >= 8
    assert sum({"head"} < set(kind.parts) for kind in core.values()) >= 20
    assert sum(bool(kind.facing) for kind in core.values()) >= 20
    assert sum(len(kind.drawings) >= 3 for kind in core.values()) >= 100
    assert sum(len(kind.everyday) >= 5 for kind in core.values()) >= 30
    assert len(vocabulary(core.values(), BACKGROUNDS)) < 1500
    assert sum(any(set(drawing.parts) - {"head"} for drawing in kind.drawings) for kind in core.values()) >= 45
    for kind in KINDS:  # a trait never contradicts a colour the caption may also name
        assert not (kind.colours and set(kind.traits) & set(COLOURS))
    assert all(word.isalpha() and word.islower() for word in vocabulary(KINDS, BACKGROUNDS))


def test_other_kinds_are_cached_under_another_name(tmp_path):
    assert art_file(KINDS, tmp_path) != art_file(KINDS[1:], tmp_path)


def test_missing_and_damaged_sprites_say_what_to_do(tmp_path):
    with pytest.raises(ArtError, match="world build"):
        World.load(tmp_path)
    path = art_file(KINDS, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not an archive")
    with pytest.raises(ArtError, match="damaged"):
        load_art(KINDS, tmp_path)


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    other = tmp_path / "other.tgz"
    other.write_bytes(b"something else")
    with pytest.raises(ArtError, match="sha256"):
        build_art(KINDS, tmp_path, [other])


def test_icons_are_cropped_and_specks_dropped():
    pytest.importorskip("resvg_py")
    body = '<rect x="40" y="40" width="40" height="20" fill="#f00"/><circle cx="100" cy="10" r="2" fill="#fff"/>'
    icons = {"icons": {"brick": {"body": body}}, "aliases": {"block": {"parent": "brick"}}, "width": 128, "height": 128}
    whole, clean = draw_icon(icons, "block"), draw_icon(icons, "block", specks=False)
    assert max(whole.shape[:2]) == 256
    assert clean.shape == (128, 256, 4)
    assert (clean[2:-2, 2:-2] == (255, 0, 0, 255)).all()
    with pytest.raises(ArtError, match="igloo"):
        draw_icon(icons, "igloo")


@pytest.mark.parametrize("name", DRAWINGS)
def test_our_own_drawings_are_drawn(name):
    pytest.importorskip("resvg_py")
    pixels = draw_icon({"icons": DRAWINGS}, name)
    assert max(pixels.shape[:2]) == 256
    assert 0.3 < (pixels[..., 3] > 127).mean() < 0.95
    assert {name, f"own:{name}"} & {drawing.icon for kind in KINDS for drawing in kind.drawings}


def test_worlds_load_no_torch():
    code = "import sys, instancediffusion.projects.emoji_world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.network
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_real_art_is_fetched_and_drawn(tmp_path):
    pytest.importorskip("resvg_py")
    build_art(KINDS, tmp_path)
    art = load_art(KINDS, tmp_path)
    assert {max(pixels.shape[:2]) for pixels in art.values()} == {256}
    world = World.load(tmp_path)
    assert len(world.kinds) == len(CORE)
    named = rgb2lab(np.array(list(COLOURS.values()))[None] / 255)[0]
    drawn = [(kind.name, drawing) for kind in world.kinds for drawing in kind.drawings]
    for name, drawing in drawn:
        pixels = art[drawing.icon]
        alpha = pixels[..., 3] > 127
        for x0, y0, x1, y1 in drawing.parts.values():  # a beak and an ear are on the drawing, not beside it
            tall, wide = alpha.shape
            inside = alpha[int(y0 * tall) : round(y1 * tall), int(x0 * wide) : round(x1 * wide)]
            assert inside.mean() > 0.25, drawing.icon
        if not drawing.colours:
            continue
        painted = (tint_weight(pixels[..., :3].astype(np.float32) / 255, drawing.tint) > 0.9) & (pixels[..., 3] > 250)
        assert painted.sum() > 0.25 * alpha.sum(), drawing.icon
        for colour in drawing.colours:  # of all named colours, the one told is the nearest to what is seen
            seen = np.asarray(world.sprites.picture(name, colour, drawing=drawing))[painted][::7, :3] / 255
            nearest = np.linalg.norm(rgb2lab(seen[None])[0][:, None] - named, axis=-1).argmin(1)
            assert (nearest == list(COLOURS).index(colour)).mean() > 0.6, (drawing.icon, colour)
    assert world.sample(0).image.shape == (128, 128, 3)
