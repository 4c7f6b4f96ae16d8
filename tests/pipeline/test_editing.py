"""Editing: only what a change can touch is drawn anew. Layers: laid over each other they are the picture."""

import dataclasses
import io
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from instancediffusion import Box, Instance, InstanceDiffusionPipeline, Mask, Point, Scene, Scribble
from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.editing import find_change
from instancediffusion.pipeline.layered_output import composite, layer_files, openraster
from instancediffusion.scene.notes import png_bytes
from tests.tiny_pipeline import disc, scene_of

FAST = {"num_inference_steps": 3, "guidance_scale": 2.0, "mis_fraction": 0.4}
BOXES = {
    "a red cat": Box(0.0, 0.0, 0.375, 0.375),
    "a dog": Box(0.5, 0.0, 1.0, 0.5),
    "a ball": Box(0.125, 0.5, 0.625, 1.0),
    "a tree": Box(0.5, 0.625, 0.875, 0.9),
}


def four(**changes):
    """Four objects; the ball and the tree overlap. None removes one."""
    instances = [Instance(caption, box=box, z_order=k) for k, (caption, box) in enumerate(BOXES.items())]
    changed = [changes.get(i.caption.replace(" ", "_"), i) for i in instances]
    return Scene("four things", tuple(i for i in changed if i is not None), 64, 64)


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def box_mask(*boxes, size=(64, 64)):
    """True inside the boxes."""
    inside = np.zeros(size, dtype=bool)
    for box in boxes:
        x0, y0, x1, y1 = (round(v * side) for v, side in zip(box.xyxy, (size[1], size[0]) * 2, strict=True))
        inside[y0:y1, x0:x1] = True
    return inside


@pytest.fixture(scope="module")
def made(pipe):
    return pipe(four(), seed=3, **FAST)


MOVED = Instance("a red cat", box=Box(0.0, 0.5, 0.125, 0.75), z_order=0)


@pytest.mark.parametrize(
    ("scene", "touched"),
    [
        (four(a_red_cat=MOVED), [BOXES["a red cat"], MOVED.box]),
        (four(a_red_cat=None), [BOXES["a red cat"]]),
        (four(a_dog=Instance("a fish", box=BOXES["a dog"], z_order=1)), [BOXES["a dog"]]),
        (dataclasses.replace(four(), instances=(*four().instances, MOVED)), [MOVED.box]),
        (four(a_ball=Instance("a ball", box=BOXES["a ball"], z_order=9)), [Box(0.5, 0.625, 0.625, 0.9)]),
    ],
    ids=["moved", "removed", "changed", "added", "restacked"],
)
def test_only_what_a_change_can_touch_is_drawn_anew(pipe, made, scene, touched):
    out = pipe.edit(made, scene, mis_merge="layered" if len(touched) > 1 else "mean")
    before, after, inside = pixels(made.images[0]), pixels(out.images[0]), box_mask(*touched)
    assert (after[~inside] == before[~inside]).all()
    # y of the restacked box ends within a pixel, which belongs to it if its middle does
    assert (np.asarray(out.redrawn) > 0).sum() == inside.sum()
    assert np.abs(after[inside] - before[inside]).mean() > 1
    assert out.seeds == made.seeds
    assert out.scenes == (scene,)


def test_a_picture_tells_its_scene_seed_and_settings(pipe, made, tmp_path):
    notes = {"scene": four().to_dict(), "seed": 3, "settings": made.settings.to_dict()}
    data = png_bytes(made.images[0], notes)
    (tmp_path / "a.png").write_bytes(data)
    opened = Image.open(io.BytesIO(data))
    scene = four(a_red_cat=None)
    expected = pixels(pipe.edit(made, scene).images[0])
    for picture in (tmp_path / "a.png", str(tmp_path / "a.png"), data, opened):
        out = pipe.edit(picture, scene)
        assert (pixels(out.images[0]) == expected).all()
        assert out.settings.replace(height=None, width=None) == made.settings.replace(
            strength=1.0, height=None, width=None
        )
    arrays = pipe(four(), seed=3, output_type="np", **FAST)
    assert (pixels(pipe.edit(arrays, scene).images[0]) == expected).all()


def test_any_picture_of_any_size(pipe):
    """A picture from elsewhere, which is larger than the model draws: what is kept is kept at its own resolution."""
    array = np.random.default_rng(0).integers(0, 256, (230, 230, 3), dtype=np.uint8)
    picture = Image.fromarray(array)
    scene = Scene("a place", (Instance("a dog", box=Box(0.5, 0.0, 1.0, 0.5)),), 512, 512)
    for given in (picture, array.astype(np.float32) / 255, torch.from_numpy(array).permute(2, 0, 1) / 255):
        out = pipe.edit(given, scene, seed=1, **FAST)
        inside = box_mask(scene.instances[0].box, size=(230, 230))
        assert out.images[0].size == (230, 230)
        assert (pixels(out.images[0])[~inside] == array[~inside]).all()
        assert (pixels(out.images[0])[inside] != array[inside]).mean() > 0.9
    gone = pipe.edit(picture, Scene("a place", (), 512, 512), before=scene, seed=1, **FAST)
    assert (pixels(gone.images[0])[~inside] == array[~inside]).all()


def test_one_object_is_drawn_anew_with_another_seed(pipe, made):
    out = pipe.edit(made, four(), redraw=[1])
    inside = box_mask(BOXES["a dog"])
    assert out.seeds != made.seeds
    assert (pixels(out.images[0])[~inside] == pixels(made.images[0])[~inside]).all()
    wider = pipe.edit(made, four(), redraw=[1], margin=0.1, seed=1)
    assert (np.asarray(wider.redrawn) > 0).sum() > inside.sum()


@pytest.mark.parametrize(
    ("scene", "options", "message"),
    [
        (four(), {}, "it is that of the picture"),
        (dataclasses.replace(four(), prompt="others"), {}, "only its prompt differs"),
        (dataclasses.replace(four(), width=128), {}, "has another shape than the picture of 64 x 64"),
        (four(), {"redraw": [4]}, "redraw: there is no instance 4; the scene has 4"),
        (four(a_dog=None), {"mask_image": Image.new("L", (64, 64))}, r"mask_image: edit\(\) sets it"),
        (four(a_dog=None), {"index": 1}, "index: the output has no picture 1"),
        (four(a_dog=None), {"num_inference_step": 1}, "num_inference_step: unknown setting"),
    ],
)
def test_what_cannot_be_edited_is_refused(pipe, made, scene, options, message):
    with pytest.raises(SettingsError, match=message):
        pipe.edit(made, scene, **options)


def test_files_that_are_no_pictures_are_refused(pipe, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    for given in (tmp_path / "a.png", tmp_path / "none.png", b"", 7, None):
        with pytest.raises(SettingsError, match="picture: "):
            pipe.edit(given, four())


def test_changes_are_found_by_what_can_be_seen():
    mask = Instance("a ball", mask=disc(), z_order=5)
    others = (Instance("a cat", box=Box(0.5, 0.5, 1.0, 1.0), z_order=1), Instance("a dog", point=Point(0.2, 0.2)))
    scene = Scene("things", (mask, *others), 64, 64)
    size = (64, 64)
    # Other numbers, the same order; another sequence in the file: nothing changed.
    renumbered = (others[1], dataclasses.replace(others[0], z_order=-3), dataclasses.replace(mask, z_order=0))
    assert not find_change(scene, dataclasses.replace(scene, instances=renumbered), size).region.any()
    odd = Scene("odd", (Instance("a cat", box=Box(0.1, 0.3, 0.7, 0.9)),), 301, 97)
    assert not find_change(Scene.from_dict(odd.to_dict()), odd, size).region.any()
    # What stands in front as a mask hides the change.
    gone = find_change(scene, dataclasses.replace(scene, instances=(mask, others[1])), size)
    assert (gone.region.numpy() == box_mask(others[0].box) & ~disc().array).all()
    assert gone.before == (1,)
    # Twins: one of two that are equal is removed.
    twins = Scene("twins", (others[0], others[0], others[1]), 64, 64)
    one = find_change(twins, dataclasses.replace(twins, instances=others), size)
    assert (one.region.numpy() == box_mask(others[0].box)).all()
    # An order stated where none was.
    stacked = (mask, others[0], dataclasses.replace(others[1], z_order=2))
    assert find_change(scene, dataclasses.replace(scene, instances=stacked), size).restacked == ((0, 2), (1, 2))


def every_kind():
    instances = (
        Instance("a meadow", mask=Mask.from_array(np.arange(64)[:, None].repeat(64, 1) > 30)),
        Instance("a cat & <dog> \x00", box=Box(0.1, 0.1, 0.6, 0.6), z_order=1),
        Instance("a tree", scribble=Scribble(((0.5, 0.2), (0.6, 0.8))), z_order=2),
        Instance("a ball", point=Point(0.8, 0.8), z_order=0),
    )
    return Scene("things", instances, 64, 64)


@pytest.mark.parametrize("scene", [every_kind(), scene_of(2), scene_of(0)], ids=["kinds", "two", "none"])
def test_layers_laid_over_each_other_are_the_picture(pipe, scene):
    out = pipe([scene, four()], seed=1, layers=True, **FAST)
    for k, drawn in enumerate((scene, four())):
        layers = out.layers[k]
        assert layers[0].instance is None
        assert len(layers) == len(drawn.instances) + 1
        assert (pixels(composite(layers)) == pixels(out.images[k])).all()
        shown = [layer.instance for layer in layers if layer.instance is not None]
        orders = [drawn.instances[i].z_order for i in shown]
        assert orders == sorted(orders, key=lambda z: (z is not None, z or 0))
    # What is hidden was drawn, too: another picture than what hides it.
    ball, tree = (np.asarray(out.layers[1][k].image).astype(int) for k in (3, 4))
    both = (ball[..., 3] == 255) & (tree[..., 3] == 255)
    assert both.sum() > 50
    assert np.abs(ball[both] - tree[both]).mean() > 1


def test_layer_files_open_elsewhere(pipe):
    out = pipe(every_kind(), seed=1, layers=True, **FAST)
    files = layer_files(out.layers[0])
    assert list(files) == [
        "00_background.png", "01_a_meadow.png", "02_a_ball.png", "03_a_cat_dog.png", "04_a_tree.png", "composite.png",
    ]  # fmt: skip
    data = openraster(out.layers[0])
    assert data[30:38] == b"mimetype"  # where programs look for it
    assert data[38:54] == b"image/openraster"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
        assert archive.testzip() is None
        root = ElementTree.fromstring(archive.read("stack.xml"))
        assert (root.get("w"), root.get("h")) == ("64", "64")
        sources = [layer.get("src") for layer in root.iter("layer")]
        joined = Image.new("RGBA", (64, 64))
        for source in reversed(sources):
            joined = Image.alpha_composite(joined, Image.open(io.BytesIO(archive.read(source))).convert("RGBA"))
        merged = Image.open(io.BytesIO(archive.read("mergedimage.png")))
        assert (pixels(joined) == pixels(merged)).all()
        assert (pixels(merged) == pixels(out.images[0])).all()
        assert Image.open(io.BytesIO(archive.read("Thumbnails/thumbnail.png"))).size <= (256, 256)
    assert data == openraster(out.layers[0])


@pytest.fixture(scope="module")
def mini():
    pipeline = InstanceDiffusionPipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_mini_keeps_the_rest(mini):
    """One of four objects moves, two are restacked."""
    fast = {"num_inference_steps": 2, "mis_fraction": 0}
    made = mini(four(), seed=5, **fast)
    before, size = pixels(made.images[0]), made.images[0].size[::-1]
    after = pixels(mini.edit(made, four(a_red_cat=MOVED)).images[0])
    inside = box_mask(BOXES["a red cat"], MOVED.box, size=size)
    assert (after[~inside] == before[~inside]).all()
    assert np.abs(after[inside] - before[inside]).mean() > 1
    restacked = four(a_ball=Instance("a ball", box=BOXES["a ball"], z_order=9))
    after = pixels(mini.edit(made, restacked).images[0])
    shared = box_mask(BOXES["a ball"], size=size) & box_mask(BOXES["a tree"], size=size)
    assert (after[~shared] == before[~shared]).all()
    assert (after[shared] != before[shared]).any()
