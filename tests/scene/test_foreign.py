"""Files of other programs: read where their meaning is plain, else named; never taken for misspelt scenes."""

import base64
import io
import json
import pickle
import random
import re
import struct
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from instancediffusion.errors import SceneError, SceneWarning
from instancediffusion.scene import READ, ReadOptions, Scene, check_source, check_source_bytes, load_scene, load_scenes
from instancediffusion.scene.formats.foreign.entries import scene_name, unique_names
from instancediffusion.scene.notes import png_bytes

LABELME = {
    "version": "5.4.1",
    "flags": {},
    "shapes": [
        {"label": "hen", "points": [[10, 10], [30, 10], [30, 30], [10, 30]], "shape_type": "polygon", "group_id": 1},
        {"label": "hen", "points": [[40, 10], [50, 10], [50, 30], [40, 30]], "shape_type": "polygon", "group_id": 1},
        {"label": "barn", "points": [[90, 70], [50, 20]], "shape_type": "rectangle", "group_id": None},
        {"label": "pond", "points": [[60, 60], [60, 70]], "shape_type": "circle"},
        {"label": "fence", "points": [[0, 5], [50, 5], [99, 6]], "shape_type": "linestrip"},
        {"label": "gate", "points": [[5, 75]], "shape_type": "point"},
        {"label": "broken", "points": [["x", 1]], "shape_type": "polygon"},
    ],
    "imagePath": "..\\photos\\farm.jpg",
    "imageData": None,
    "imageHeight": 80,
    "imageWidth": 100,
}
STUDIO = [
    {
        "id": 12,
        "data": {"image": "/data/upload/3/1f2e-farm%20yard.jpg"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    {
                        "type": "rectanglelabels", "original_width": 100, "original_height": 80,
                        "value": {"x": 10, "y": 25, "width": 50, "height": 50, "rotation": 0,
                                  "rectanglelabels": ["hen"]},
                    },
                    {
                        "type": "polygonlabels", "original_width": 100, "original_height": 80,
                        "value": {"points": [[10, 10], [30, 10], [30, 50]], "polygonlabels": ["barn"]},
                    },
                    {"type": "choices", "value": {"choices": ["sunny"]}},
                ],
            }
        ],
    }
]  # fmt: skip
STUDIO_SHORT = [
    {
        "image": "s3://bucket/farm.png",
        "label": [{"x": 10, "y": 25, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["hen"],
                   "original_width": 100, "original_height": 80}],
    }
]  # fmt: skip
VOC = """<?xml version="1.0"?>
<annotation><folder>x</folder><filename>farm.jpg</filename>
<size><width>100</width><height>80</height><depth>3</depth></size>
<object><name>hen</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>60</xmax><ymax>60.0</ymax></bndbox></object>
<object><name>ghost</name><bndbox><xmin>10</xmin></bndbox></object></annotation>"""
CVAT = """<annotations><version>1.1</version><meta/>
<image id="4" name="yard/farm.jpg" width="100" height="80">
<box label="hen" xtl="10" ytl="20" xbr="60" ybr="60" occluded="0" z_order="1"/>
<polygon label="barn" points="10,10;30,10;30,30;10,30" z_order="0"/>
<polyline label="fence" points="0,5;50,5" z_order="0"/>
<points label="gate" points="5,75" z_order="0"/>
<mask label="pond" rle="1,2,1" left="50" top="40" width="2" height="2" z_order="0"/></image>
<image id="5" name="b.jpg" width="0" height="0"><box label="hen" xtl="1" ytl="2" xbr="6" ybr="6"/></image>
</annotations>"""
HEN = (0.1, 0.25, 0.6, 0.75)


def read(content, **options):
    content = content if isinstance(content, bytes) else (
        content.encode() if isinstance(content, str) else json.dumps(content).encode())  # fmt: skip
    return check_source_bytes(content, options=ReadOptions(**options))


def only(content, **options):
    check = read(content, **options)
    assert not [problem for problem in check.problems if problem.severity == "error"], check.problems
    (item,) = check.scenes
    return item


def test_labelme():
    check = read(LABELME)
    (item,) = check.scenes
    assert (check.format, item.name, item.file_name) == ("labelme", "farm", "..\\photos\\farm.jpg")
    assert (item.scene.width, item.scene.height) == (100, 80)
    found = {instance.caption: instance for instance in item.scene.instances}
    assert {name: instance.kinds for name, instance in found.items()} == {
        "hen": ("mask",), "barn": ("box",), "pond": ("mask",), "fence": ("scribble",), "gate": ("point",),
    }  # fmt: skip
    assert found["barn"].box.xyxy == (0.5, 0.25, 0.9, 0.875)
    assert found["hen"].mask.area == 20 * 20 + 10 * 20  # shapes of one group are one object
    assert found["pond"].mask.area == pytest.approx(np.pi * 100, rel=0.03)
    assert [p.path for p in check.problems] == ["$.shapes[6].points"] and "left out" in check.problems[0].message


def test_a_size_that_is_not_stated_is_that_of_the_picture_beside(tmp_path):
    Image.new("RGB", (100, 80)).save(tmp_path / "farm.jpg")
    for name, content in (
        ("a.json", json.dumps({**LABELME, "imageWidth": None, "imageHeight": None, "shapes": LABELME["shapes"][:3]})),
        ("b.xml", VOC.replace("<size><width>100</width><height>80</height><depth>3</depth></size>", "")),
    ):
        (tmp_path / name).write_text(content)
        check = check_source(tmp_path / name)
        assert (check.scenes[0].scene.width, check.scenes[0].scene.height) == (100, 80)
        (problem,) = [p for p in check_source_bytes(content.encode()).problems if "--canvas" in p.fix]
        assert "size" in problem.message


def test_labelme_masks():
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(buffer, "PNG")
    shape = {"label": "hen", "shape_type": "mask", "points": [[10, 20], [15, 23]],
             "mask": base64.b64encode(buffer.getvalue()).decode()}  # fmt: skip
    bitmap = only({**LABELME, "shapes": [shape]}).scene.instances[0].mask.array
    assert bitmap.sum() == 24 and bitmap[20:24, 10:16].all()


@pytest.mark.parametrize("content", [STUDIO, STUDIO[0], STUDIO_SHORT])
def test_label_studio(content):
    item = only(content)
    assert item.name in ("1f2e-farm yard", "farm")
    assert item.scene.instances[0].caption == "hen"
    assert item.scene.instances[0].box.xyxy == pytest.approx(HEN)


def test_label_studio_turned_boxes_are_masks():
    content = json.loads(json.dumps(STUDIO))
    content[0]["annotations"][0]["result"][0]["value"].update(x=50, y=25, rotation=90)
    mask = only(content).scene.instances[0].mask
    assert mask.area == pytest.approx(50 * 40, abs=60)
    assert mask.array[25:65, 15:45].all()


def test_voc():
    check = read(VOC)
    (item,) = check.scenes
    assert (check.format, item.name) == ("voc", "farm")
    assert [(i.caption, i.box.xyxy) for i in item.scene.instances] == [("hen", HEN)]
    assert len(check.problems) == 1


def test_cvat():
    check = read(CVAT)
    (item,) = check.scenes
    assert (check.format, item.name, item.image_id) == ("cvat", "farm", 4)
    kinds = {i.caption: (i.kinds[0], i.z_order) for i in item.scene.instances}
    assert kinds == {"hen": ("box", 1), "barn": ("mask", 0), "fence": ("scribble", 0), "gate": ("point", 0),
                     "pond": ("mask", 0)}  # fmt: skip
    pond = next(i for i in item.scene.instances if i.caption == "pond").mask.array
    assert np.argwhere(pond).tolist() == [[40, 51], [41, 50]]
    assert any("image[2]" in problem.path and "left out" in problem.message for problem in check.problems)


def test_hostile_xml_is_not_expanded():
    bomb = '<!DOCTYPE a [<!ENTITY b "x">]><annotation><object/></annotation>'
    (problem,) = read(bomb).problems
    assert "entities" in problem.message


def test_yolo_takes_names_and_size_from_beside_it(tmp_path):
    folder = tmp_path / "set" / "labels" / "train"
    folder.mkdir(parents=True)
    (folder / "farm.txt").write_text("1 0.35 0.5 0.5 0.5\n0 0.1 0.1 0.3 0.1 0.3 0.3\n7 0.5 0.5 0.1 0.1\n")
    with pytest.raises(SceneError, match=r"YOLO.*--labels"):
        load_scenes(folder / "farm.txt")
    (tmp_path / "set" / "data.yaml").write_text("train: images\nnames:\n  0: barn\n  1: 'hen'  # a bird\n")
    with pytest.warns(SceneWarning, match="square"):
        assert load_scene(folder / "farm.txt").width == 512
    (tmp_path / "set" / "images" / "train").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (80, 100)).save(tmp_path / "set" / "images" / "train" / "farm.jpg", exif=turned)
    with pytest.warns(SceneWarning, match="class 7"):
        (item,) = load_scenes(folder / "farm.txt")
    assert (item.name, item.scene.width, item.scene.height) == ("farm", 100, 80)
    assert [(i.caption, i.kinds) for i in item.scene.instances] == [("hen", ("box",)), ("barn", ("mask",))]
    assert item.scene.instances[0].box.xyxy == pytest.approx(HEN)
    given = check_source(folder / "farm.txt", options=ReadOptions(labels=["cow", "pig"], canvas=(64, 32)))
    assert given.scenes[0].scene.prompt == "pig, cow" and given.scenes[0].scene.height == 32


@pytest.mark.parametrize("names", ["names: [barn, 'hen']", "names: {0: barn, 1: hen}", "nc: 2\nnames:\n- barn\n- hen"])
def test_yolo_names_in_every_yaml(tmp_path, names):
    (tmp_path / "data.yaml").write_text(names)
    (tmp_path / "a.txt").write_text("1.0 0.35 0.5 0.5 0.5 0.93\n")
    with pytest.warns(SceneWarning):
        assert load_scene(tmp_path / "a.txt").prompt == "hen"


def test_answers_of_llm_grounded_diffusion():
    text = """Objects: [('a hen (white)', [51.2, 128, 256, 256]), ('a barn', [0, 0, 0, 9])]
Background prompt: a farm at dawn
Negative prompt: """
    check = read(text)
    (item,) = check.scenes
    assert (item.scene.prompt, item.scene.negative_prompt) == ("a farm at dawn, a hen (white)", None)
    assert item.scene.instances[0].box.xyxy == pytest.approx(HEN)
    assert len(check.problems) == 1 and "no area" in check.problems[0].message
    assert only("Caption: a farm\n" + text.replace("prompt: \n", "prompt: rain\n")).scene.prompt == "a farm"


GEMINI = [{"box_2d": [250, 100, 750, 600], "label": "hen"}]
PLANS = [
    (GEMINI, {}),
    (f"```json\n{json.dumps(GEMINI)}\n```", {}),
    ("Here it is:\n```json\n" + json.dumps(GEMINI) + "\n```\nDone.", {}),
    ({"version": 1, "prompt": "p", "width": 100, "height": 80, "instances": [{"caption": "hen", **GEMINI[0]}]}, {}),
    ({"compositional_deconstruction": {"elements": [{"bbox": [250, 100, 750, 600], "desc": "hen"}]}}, {}),
    ([{"bbox_2d": [10, 20, 60, 60], "label": "hen"}], {"units": "pixels", "canvas": (100, 80)}),
    ([{"bbox_2d": [100, 250, 600, 750], "label": "hen"}], {"units": "thousandths"}),
    ({"prompt": "p", "object_list": [["hen", [0.1, 0.25, 0.5, 0.5]]]}, {"boxes": "xywh"}),
    ({"image_width": 100, "image_height": 80, "objects": [{"label": "hen", "xmin": 10, "ymin": 20, "xmax": 60,
                                                           "ymax": 60}]}, {}),
    ({"prompt": "p", "gligen_phrases": ["hen"], "gligen_boxes": [list(HEN)]}, {}),
    ({"prompt": "p", "phrases": ["hen"], "boxes": [[0.1, 0.25, 0.5, 0.5]]}, {"boxes": "xywh"}),
    ({"width": 100, "height": 80, "boxes": {"hen": {"x": 10, "y": 20, "w": 50, "h": 40}}}, {}),
    ({"version": 1, "prompt": "p", "width": 100, "height": 80,
      "instances": [{"caption": "hen", "box": [0.1, 0.25, 0.6, 0.75]}]}, {"units": "fractions", "boxes": "xyxy"}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "options"), PLANS, ids=range(len(PLANS)))
def test_plans_of_language_models(content, options):
    (instance,) = only(content, **options).scene.instances
    assert instance.caption == "hen"
    assert instance.box.xyxy == pytest.approx(HEN)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([{"bbox_2d": [100, 250, 600, 750], "label": "hen"}], "--units"),
        ([{"bbox": [100, 250, 600, 750], "label": "hen"}], "--boxes"),
        ({"prompt": "p", "objects": [{"name": "hen", "bbox": [0.1, 0.2, 0.3, 0.4]}]}, "--boxes"),
        ([{"bbox_2d": [1010, 20, 1060, 60], "label": "hen"}], "--canvas"),
        ([{"box_2d": [250, 100, 1750, 600], "label": "hen"}], "--units"),
    ],
)
def test_plans_that_could_mean_two_things_are_asked_about(content, says):
    check = read(content)
    assert not check.scenes and says in check.problems[-1].fix


def test_keys_of_another_format_are_never_taken_for_misspelt_ones():
    """`box_2d` was once answered by "did you mean 'box'?", and whoever obeyed got every object transposed."""
    data = {"version": 1, "prompt": "p", "width": 1024, "height": 512,
            "instances": [{"caption": "hen", "box_2d": [500, 100, 900, 300]}]}  # fmt: skip
    check = read(data)
    assert check.scenes[0].scene.instances[0].box.xyxy == (0.1, 0.5, 0.3, 0.9)
    assert "[y0, x0, y1, x1]" in check.problems[0].message
    assert not any("did you mean" in str(problem) for problem in check.problems)


def test_fractions_are_told_in_every_kind_of_place():
    places = [{"box": [0.1, 0.5, 0.4, 0.9]}, {"point": [0.5, 0.5]}, {"scribble": [[0.1, 0.2], [0.3, 0.4]]}]
    data = {"version": 1, "prompt": "p", "width": 64, "height": 64,
            "instances": [{"caption": "a", **place} for place in places]}  # fmt: skip
    check = read(data)
    assert len(check.problems) == 3 and all("--units fractions" in problem.fix for problem in check.problems)
    scene = only(data, units="fractions").scene
    assert scene.instances[1].point.y == 0.5 and scene.instances[2].scribble.points[1] == pytest.approx((0.3, 0.4))


def test_syntax_of_other_programs_is_told():
    """`{a white cat|a black cat}` and `<lora:...>` were once read as words without one, even with --strict."""
    data = {"version": 1, "prompt": "(a red hen:1.5), <lora:detail:0.8>, BREAK, meadow", "negative_prompt": "[rain]",
            "width": 64, "height": 64, "instances": [{"caption": "{a white hen|a black hen}", "box": [1, 1, 60, 60]},
                                                     {"caption": "a hen (white)", "box": [1, 1, 60, 60]}]}  # fmt: skip
    found = [(p.path, p.severity, p.message.split(",")[0]) for p in read(data).problems]
    assert found == [
        ("$.prompt", "warning", "has <lora:...>"),
        ("$.prompt", "warning", "has BREAK and AND"),
        ("$.negative_prompt", "warning", "has [less]"),
        ("$.instances[0].caption", "warning", "has choices such as {a|b}"),
    ]


def picture(kind="PNG", **texts):
    buffer, chunks = io.BytesIO(), PngImagePlugin.PngInfo()
    for key, value in texts.items():
        chunks.add_text(key, value)
    Image.new("RGB", (8, 8)).save(buffer, kind, **({"pnginfo": chunks} if kind == "PNG" else {}))
    return buffer.getvalue()


def photo(kind, **exif):
    buffer, tags = io.BytesIO(), Image.Exif()
    if "comment" in exif:
        tags.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + exif["comment"].encode("utf-16-be")
    if "make" in exif:
        tags[0x010F] = exif["make"]
    Image.new("RGB", (8, 8)).save(buffer, kind, exif=tags)
    return buffer.getvalue()


def archive(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, b"x")
    return buffer.getvalue()


HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
NAMED = {
    "ComfyUI": picture(prompt="{}", workflow="{}"),
    "AUTOMATIC1111": picture(parameters="a hen\nSteps: 20"),
    "InvokeAI": picture(invokeai_metadata="{}"),
    "carries no scene": picture(),
    "JPEG": picture("JPEG"),
    "JPEG picture made by AUTOMATIC1111": photo("JPEG", comment="a hen\nSteps: 20, Sampler: Euler"),
    "WebP picture made by ComfyUI": photo("WEBP", make='workflow:{"nodes": []}'),
    "GIF": picture("GIF"),
    "WebP": picture("WEBP"),
    "safetensors": struct.pack("<Q", len(HEADER)) + HEADER + b"\0" * 4,
    "weights (PyTorch)": archive("archive/data.pkl"),
    "ZIP": archive("a.txt"),
    "pickle": pickle.dumps({"a": 1}),
    "NumPy": b"\x93NUMPY\x01\x00",
    "PDF": b"%PDF-1.7\n",
    "gzip": b"\x1f\x8b\x08\x00",
    "web page": b"<!doctype html><html></html>",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "XML": b"<kml></kml>",
    "UTF-16": '{"version": 1}'.encode("utf-16"),
    "ComfyUI workflow": {"nodes": [], "links": [], "version": 0.4},
    "a ComfyUI": {"3": {"class_type": "KSampler", "inputs": {}}},
    "results": [{"image_id": 42, "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.9}],
    "VGG": {"_via_settings": {}, "_via_img_metadata": {}},
    "VGG Image": {"a.jpg123": {"filename": "a.jpg", "regions": []}},
    "CreateML": [{"image": "a.jpg", "annotations": [{"label": "hen", "coordinates": {"x": 1}}]}],
    "manifest": {"version": 1, "kind": "generate", "items": {}, "pending": {}},
    "no known format": {"colours": ["red"], "size": 3},
    "JSON list": [1, 2, 3],
    "begins with 'hen'": b"hen\ncow\n",
    "$.annotations: is missing": {"images": [], "categories": []},
    "YAML": b"path: ../set\ntrain: images\nnames: [a, b]\n",
    "CSV": b"id,label,xmin,ymin\n1,hen,3,4\n",
}


@pytest.mark.parametrize("kind", NAMED)
def test_what_is_not_read_is_named_in_one_line_with_a_way_on(kind):
    check = read(NAMED[kind])
    (problem,) = check.problems
    assert kind in str(problem), str(problem)
    assert problem.fix and problem.severity == "error" and not check.scenes
    assert "did you mean" not in str(problem)


def test_large_weights_are_told_from_how_they_begin(tmp_path, monkeypatch):
    monkeypatch.setattr("instancediffusion.scene.sources.MAX_FILE_BYTES", 1 << 19)
    for content, says in ((NAMED["safetensors"], "safetensors"), (b"{", "larger than")):
        (tmp_path / "big").write_bytes(content + (b"\0" if says == "safetensors" else b" ") * (1 << 20))
        (problem,) = check_source(tmp_path / "big").problems
        assert says in problem.message


def test_a_picture_of_ours_is_read_with_its_seed_and_settings(tmp_path):
    scene = load_scene("examples/panda_balloons.json")
    notes = {"scene": scene.to_dict(), "seed": 2**64 - 1, "settings": {"guidance_scale": 2.5}}
    (tmp_path / f"panda_{2**64 - 1}.png").write_bytes(png_bytes(Image.new("RGB", (8, 8)), notes))
    (item,) = load_scenes(tmp_path / f"panda_{2**64 - 1}.png")
    assert (item.name, item.scene, item.seed) == ("panda", scene, 2**64 - 1)
    assert item.settings == {"guidance_scale": 2.5}


def test_lists_and_lines_of_scenes():
    scene = load_scene("examples/panda_balloons.json").to_dict()
    bad = {**scene, "width": 3}
    for content in ([scene, bad, scene], "\n".join(json.dumps(item) for item in (scene, bad, scene))):
        check = read(content, name="many.json")
        assert [item.name for item in check.scenes] == ["many_1", "many_3"]
        assert [p.path for p in check.problems if "left out" in p.message] == ["$[1].width"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Scene.from_dict(scene)


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("a.jpg", "a"),
        ("train/a.b.JPEG", "a.b"),
        ("v1.2", "v1.2"),
        ("..\\..\\media\\3\\1f-yard.jpg", "1f-yard"),
        ("C:\\pictures\\a dog.png", "a dog"),
        ("\\\\server\\share\\dog.png", "dog"),
        ("/data/upload/3/a%20dog.jpg", "a dog"),
        ("/data/local-files/?d=set%2Fa%20dog.jpg", "a dog"),
        ("https://b.example.org/set/a%20dog.jpg?X-Amz-Signature=" + "0" * 900, "a dog"),
        ("https://b.example.org/o/set%2Fdog.jpg?alt=media&token=1/2", "dog"),
        ("file:///home/me/d%C3%B6g.png#x", "dög"),
        ("gs://bucket/dog.jpg", "dog"),
        ("con.jpg", "_con"),
        ("...", "scene"),
        ("", "scene"),
        ("a:b*c?.png", "a_b_c_"),
        ("\ud800.png", "_"),
        ("犬.jpg", "犬"),
    ],
)
def test_names_of_pictures_from_every_system(file_name, name):
    assert scene_name(file_name) == name


def test_names_are_safe_and_unique():
    assert len(scene_name("犬" * 300).encode()) <= 150
    assert unique_names(["a", "A", "a", "b", "a-2"]) == ["a", "A-2", "a-3", "b", "a-2-2"]
    assert not re.search(r'[/\\:*?"<>|]', "".join(map(scene_name, ["a/b?c", "d|e", "f\\g:h"])))


def test_a_key_given_twice_refuses_no_file_of_another_program():
    text = json.dumps(LABELME).replace('"imageWidth"', '"imageWidth": 90, "imageWidth"')
    check = read(text)
    assert check.scenes[0].scene.width == 100
    assert "$.imageWidth: is given twice; the last one is read" in str(check.problems[0])


def test_pictures_of_one_name_lie_in_different_folders():
    images = [{"id": n, "file_name": f"{part}/1.jpg", "width": 64, "height": 64} for n, part in enumerate(("x", "y"))]
    annotations = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]} for n in (0, 1)]
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "hen"}]}
    assert [item.name for item in read(data).scenes] == ["x_1", "y_1"]


def test_the_formats_are_told_apart_by_content_alone():
    samples = {"labelme": LABELME, "label-studio": STUDIO, "voc": VOC, "cvat": CVAT, "boxes": GEMINI}
    for format, content in samples.items():
        assert read(content).format == format in READ


@pytest.mark.parametrize("wanted", READ)
def test_a_file_that_is_not_what_it_is_said_to_be_is_an_error(wanted):
    for content in (b"<annotation><object/></annotation>", b"[1, 2]", b"{}", b"words", picture(), GEMINI, b"\xff\x00"):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        check = check_source_bytes(content, format=wanted)
        assert check.scenes or any(problem.severity == "error" for problem in check.problems)


def spoilt(value, rng):
    """A copy of JSON data with something odd in one place."""
    odd = (None, True, -1, 1e400, 0.5, "", "x", "7", [], {}, [[]], [None] * 4, [0, 0, 0, 0], {"a": 1}, 10**30, "\ud800")
    data, places = json.loads(json.dumps(value)), []

    def walk(parent):
        for key in parent if isinstance(parent, dict) else range(len(parent)):
            places.append((parent, key))
            if isinstance(parent[key], dict | list):
                walk(parent[key])

    walk(data)
    for parent, key in rng.sample(places, min(len(places), rng.choice([1, 1, 2, 4]))):
        if rng.random() < 0.2 and isinstance(parent, dict):
            parent.pop(key, None)
        elif key in parent or isinstance(parent, list):
            parent[key] = rng.choice(odd)
    return data


@pytest.mark.parametrize(
    "kind", ["labelme", "studio", "short", "gemini", "pairs", "coco", "voc", "cvat", "yolo", "lmd"]
)
def test_spoilt_files_are_read_in_part_or_refused(kind):
    """No file of another program, however it is spoilt, ends in anything but scenes or problems."""
    rng = random.Random(kind)
    coco = {"images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": 0,
                             "segmentation": [[1, 2, 30, 4, 30, 40]]}],
            "categories": [{"id": 1, "name": "hen"}]}  # fmt: skip
    data = {"labelme": LABELME, "studio": STUDIO, "short": STUDIO_SHORT, "gemini": GEMINI, "coco": coco,
            "pairs": {"prompt": "p", "phrases": ["hen"], "boxes": [[0.1, 0.2, 0.3, 0.4]]}}  # fmt: skip
    texts = {"voc": VOC, "cvat": CVAT, "yolo": "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.3 0.1 0.3 0.3\n",
             "lmd": "Objects: [('a hen', [51, 128, 256, 256])]\nBackground prompt: a farm\n"}  # fmt: skip
    outcomes = set()
    for _ in range(400):
        if kind in data:
            content = json.dumps(spoilt(data[kind], rng)).encode()
        else:
            content = bytearray(texts[kind].encode())
            for _ in range(rng.choice([1, 2, 6])):
                at = rng.randrange(len(content))
                content[at : at + rng.choice([0, 1, 5])] = rng.choice(
                    [b"", b"9", b"-", b"nan", b"[", b"'", b"<", b"\xff", b"\0"]
                )
        check = check_source_bytes(bytes(content), options=ReadOptions(labels=["hen", "cow"], boxes=None))
        failed = any(problem.severity == "error" for problem in check.problems)
        assert bool(check.scenes) != failed
        outcomes.add(failed)
    assert outcomes == {True, False} or kind in ("yolo", "pairs")
