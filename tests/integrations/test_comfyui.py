"""The ComfyUI nodes, imported and called as ComfyUI does it: by path, in inference mode, outputs by position."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_pipeline import tiny_pipeline

from instancediffusion import Box, Instance, Mask, Point, Scene, Scribble, load_scene

FOLDER = Path("integrations/comfyui")


@pytest.fixture(scope="module")
def package():
    """The folder as ComfyUI's loader imports it: a module of its own, by path."""
    name = str(FOLDER.resolve()).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def layout(package):
    return sys.modules[f"{package.__name__}.layout"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    best = {"num_inference_steps": 2, "guidance_scale": 2.0}
    tiny_pipeline(folder / "tokenizer", default_settings=best).save_pretrained(folder / "model")
    return str(folder / "model")


class CreateBoundingBoxes:
    """What the core node gives: a preview, boxes in one frame without metadata, elements in thousandths."""

    RETURN_TYPES = ("IMAGE", "BOUNDING_BOX", "ARRAY")
    FUNCTION = "execute"

    def execute(self, width, height, editor_state):
        frame = [{key: box[key] for key in ("x", "y", "width", "height")} for box in editor_state]
        elements = [
            {
                "type": "obj",
                "bbox": [round(1000 * v) for v in (b["y"] / height, b["x"] / width, (b["y"] + b["height"]) / height,
                                                   (b["x"] + b["width"]) / width)],
                "desc": b["metadata"]["desc"],
            }
            for b in editor_state
        ]  # fmt: skip
        return torch.zeros(1, height, width, 3), [frame], elements


class Show:
    RETURN_TYPES = ()
    FUNCTION = "show"

    def show(self, images, **_):
        assert images.dtype == torch.float32 and images.ndim == 4 and images.shape[-1] == 3
        assert 0 <= images.min() and images.max() <= 1
        return ()


CORE = {"CreateBoundingBoxes": CreateBoundingBoxes, "SaveImage": Show, "PreviewImage": Show}


def execute(graph, classes):
    """Run a graph of the API's format as ComfyUI's executor does; returns every node's outputs."""
    outputs = {}

    def link(value):
        return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)

    def run(node):
        if node in outputs:
            return
        kind = classes[graph[node]["class_type"]]
        known = kind.INPUT_TYPES() if hasattr(kind, "INPUT_TYPES") else None
        given = {}
        for name, value in graph[node]["inputs"].items():
            if known is not None:
                socket = {**known["required"], **known.get("optional", {})}[name][0]
            if not link(value):
                given[name] = value
                if known is not None and isinstance(socket, list):
                    assert value in socket
                continue
            run(value[0])
            given[name] = outputs[value[0]][value[1]]
            source = classes[graph[value[0]]["class_type"]].RETURN_TYPES[value[1]]
            assert known is None or source == socket, f"{source} is connected to {socket}"
        assert known is None or set(known["required"]) <= set(given)
        with torch.inference_mode():
            outputs[node] = getattr(kind(), kind.FUNCTION)(**given)
        assert len(outputs[node]) == len(kind.RETURN_TYPES)

    for node in graph:
        run(node)
    return outputs


def test_every_node_tells_what_comfyui_asks_for(package):
    assert set(package.NODE_CLASS_MAPPINGS) == set(package.NODE_DISPLAY_NAME_MAPPINGS)
    for kind in package.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(kind, kind.FUNCTION)) and kind.CATEGORY and kind.DESCRIPTION
        assert len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES)
        for group in kind.INPUT_TYPES().values():
            for socket in group.values():
                assert isinstance(socket, tuple) and isinstance(socket[0], str | list)
    json.dumps({name: kind.INPUT_TYPES() for name, kind in package.NODE_CLASS_MAPPINGS.items()})


def test_the_workflow_makes_images_and_masks(package, model):
    graph = json.loads((FOLDER / "workflow.json").read_text())
    graph["1"]["inputs"]["model"] = model
    graph["4"]["inputs"].update(batch_size=2, seed=2**64 - 2)
    outputs = execute(graph, {**CORE, **package.NODE_CLASS_MAPPINGS})
    scene = outputs["3"][0]
    assert [i.caption for i in scene.instances] == ["a castle", "a panda", "a red balloon"]
    assert [i.z_order for i in scene.instances] == [0, 1, 2]
    assert scene.instances[1].box.xyxy == (40 / 512, 208 / 512, 304 / 512, 492 / 512)
    assert json.loads(outputs["3"][2]) == scene.to_dict()
    images, masks, captions = outputs["4"]
    assert images.shape == (2, 64, 64, 3) and masks.shape == (3, 64, 64)
    assert captions.splitlines() == ["a castle", "a panda", "a red balloon"]
    assert not (masks[0] * masks[1]).any() and masks[0].any()  # what the panda covers is no part of the castle's mask
    # The same as the package makes it.
    pipe = outputs["1"][0]
    expected = pipe(scene, seed=[2**64 - 2, 2**64 - 1]).images
    for image, other in zip(images, expected, strict=True):
        assert np.abs(image.numpy() * 255 - np.asarray(other, np.float32)).max() <= 1.01
    graph["4"]["inputs"].update(
        steps=1, guidance_scale=1.0, settings='{"mis_fraction": 0}', preset="fast", batch_size=1
    )
    assert not torch.equal(execute(graph, {**CORE, **package.NODE_CLASS_MAPPINGS})["4"][0][0], images[0])


def test_masks_of_any_size_become_instances(package):
    masks = torch.zeros(2, 32, 32)
    masks[0, :16], masks[1, :, 16:] = 1, 1
    make = package.NODE_CLASS_MAPPINGS["InstanceDiffusionMakeScene"]()
    scene, overlay, _ = make.make("two things", "a sky\na wall", 64, 48, "first in front", masks=masks)
    assert (scene.width, scene.height) == (64, 48)
    assert scene.instances[0].mask.array[:24].all() and not scene.instances[0].mask.array[24:].any()
    assert scene.instances[1].mask.array[:, 32:].all()
    assert [i.z_order for i in scene.instances] == [1, 0]
    assert overlay.ndim == 4 and overlay.shape[-1] == 3
    with pytest.raises(ValueError, match="has no caption"):
        make.make("p", "a sky", 64, 48, "no order", masks=masks)
    with pytest.raises(ValueError, match="3 lines for 2 objects"):
        make.make("p", "a\nb\nc", 64, 48, "no order", masks=masks)


def test_layers_bring_names_transparency_and_order(package):
    def layer(name, x, y, z, side=16, hole=0):
        transparent = torch.zeros(1, side, side)
        transparent[:, :hole] = 1
        return {"image": torch.zeros(1, side, side, 3), "type": "raster", "x": x, "y": y, "z_index": z, "name": name,
                "mask": transparent}  # fmt: skip

    background = {"image": torch.zeros(1, 64, 64, 3), "type": "raster", "x": 0, "y": 0, "z_index": 0, "name": "sky"}
    stack = {"version": 1, "canvas": (64, 64), "layers": [background, layer("a dog", 8, 8, 5, hole=8),
                                                          layer("a cat", 56, 32, 3)]}  # fmt: skip
    make = package.NODE_CLASS_MAPPINGS["InstanceDiffusionMakeScene"]()
    scene = make.make("p", "", 64, 64, "no order", layers=stack)[0]
    dog, cat = scene.instances
    assert (dog.caption, cat.caption) == ("a dog", "a cat") and dog.z_order > cat.z_order
    assert dog.mask.area == 8 * 16 and dog.mask.array[16:24, 8:24].all()
    assert cat.mask.area == 8 * 16 and cat.mask.array[32:48, 56:].all()


@pytest.mark.parametrize(
    "nesting", [lambda box: box, lambda box: [box], lambda box: [[box]], lambda b: json.dumps([b])]
)
def test_boxes_in_every_nesting(layout, nesting):
    box = {"x": 10, "y": 20, "width": -4, "height": 8, "metadata": {"name": "n", "desc": "a dog", "z_index": 3}}
    (part,) = layout.parts_of_boxes(nesting(box))
    assert (part.caption, part.box, part.z_order) == ("a dog", (6, 20, 10, 28), 3)


@pytest.mark.parametrize("value", [[{"x": 1}], [[3]], 7, [{"x": 1, "y": 2, "width": float("nan"), "height": 2}]])
def test_boxes_that_are_none_are_named(layout, value):
    with pytest.raises(ValueError, match="bboxes"):
        layout.parts_of_boxes(value)


def test_sockets_of_different_lengths_are_refused(layout):
    box = {"x": 0, "y": 0, "width": 8, "height": 8}
    with pytest.raises(ValueError, match="2 bboxes, 1 masks"):
        layout.joined(layout.parts_of_boxes([box, box]), [], layout.parts_of_masks(np.ones((8, 8)), 8, 8))


def test_scenes_come_back_from_their_boxes(layout):
    scene = load_scene("examples/panda_balloons.json")
    parts = layout.parts_of_boxes(layout.boxes_of(scene))
    again = layout.scene_of(scene.prompt, parts, [], scene.width, scene.height, "no order")
    for one, other in zip(scene.instances, again.instances, strict=True):
        assert (one.caption, one.z_order) == (other.caption, other.z_order)
        if one.box is not None:
            np.testing.assert_allclose(one.box.xyxy, other.box.xyxy, atol=1 / 512)


def test_masks_of_every_kind_of_place(layout):
    disc = Mask.from_array(np.hypot(*(np.mgrid[:40, :40] - 20)) < 10)
    scene = Scene(
        "p",
        (
            Instance("box", box=Box(0, 0, 0.5, 0.5), z_order=0),
            Instance("point", point=Point(0.25, 0.25), z_order=1),
            Instance("stroke", scribble=Scribble(((0.6, 0.1), (0.9, 0.1)))),
            Instance("mask", mask=disc),
        ),
        40,
        40,
    )
    whole = layout.instance_masks(scene, (80, 80), visible=False)
    assert whole[0].sum() == 40 * 40 and whole[3].sum() == pytest.approx(4 * disc.area)
    assert whole[1, 20, 20] == 1 and whole[2, 8, 48:72].all() and not whole[2, 20].any()
    seen = layout.instance_masks(scene, (80, 80), visible=True)
    assert seen[0].sum() == whole[0].sum() - whole[1].sum()
    assert (seen[1:] == whole[1:]).all()


def test_text_is_read_in_any_format(package):
    read = package.NODE_CLASS_MAPPINGS["InstanceDiffusionReadScene"]()
    scene, _, boxes = read.read("Objects: [('a hen', [51, 128, 256, 256])]\nBackground prompt: a farm")
    assert scene.prompt == "a farm, a hen"
    assert boxes[0][0]["x"] == 51 and boxes[0][0]["metadata"]["desc"] == "a hen"
