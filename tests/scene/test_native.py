"""The native format: every fault is found, named and placed."""

import base64
import copy
import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from instancediffusion.errors import SceneError, SceneWarning
from instancediffusion.scene import Mask, Scene, check_scene, load_scene, save_scene, scene_from_text, scene_text

from .strategies import alike, scenes

GOOD = {
    "version": 1,
    "prompt": "a panda with balloons in a park",
    "width": 512,
    "height": 256,
    "instances": [
        {"caption": "a panda", "box": [60, 50, 300, 200], "z_order": 1},
        {"caption": "a red balloon", "point": [400, 90]},
        {"caption": "a blue balloon", "scribble": [[380, 200], [400, 240]], "z_order": 2},
        {"caption": "grass", "mask": {"size": [256, 512], "counts": [1000, 500, 129572]}},
    ],
}


def changed(*steps, to):
    """Return the good scene with the value at a path replaced (or, for `...`, removed)."""
    data = copy.deepcopy(GOOD)
    place = data
    for step in steps[:-1]:
        place = place[step]
    if to is ...:
        del place[steps[-1]]
    else:
        place[steps[-1]] = to
    return data


BOX, POINT, STROKE, MASK = (("instances", i, k) for i, k in enumerate(("box", "point", "scribble", "mask")))

FAULTS = [
    (("version",), ..., "$.version", "missing"),
    (("version",), 2, "$.version", "only version 1"),
    (("version",), "1", "$.version", "only version 1"),
    (("version",), True, "$.version", "only version 1"),
    (("prompt",), ..., "$.prompt", "missing"),
    (("prompt",), "", "$.prompt", "empty"),
    (("prompt",), None, "$.prompt", "null, not a string"),
    (("negative_prompt",), [], "$.negative_prompt", "not a string"),
    (("width",), 15, "$.width", "outside 16..8192"),
    (("width",), 8193, "$.width", "outside 16..8192"),
    (("width",), 512.5, "$.width", "not an integer"),
    (("width",), "512", "$.width", "not an integer"),
    (("height",), 10**400, "$.height", "infinite"),
    (("height",), math.nan, "$.height", "NaN"),
    (("instances",), {}, "$.instances", "not an array"),
    (("instances",), ..., "$.instances", "missing"),
    (("instances", 0), 7, "$.instances[0]", "not an object"),
    (("instances", 0, "caption"), " \t", "$.instances[0].caption", "empty"),
    (("instances", 0, "caption"), ..., "$.instances[0].caption", "missing"),
    (("instances", 0, "captoin"), "x", "$.instances[0].captoin", "did you mean 'caption'"),
    (("instances", 0, "bbox"), [1, 2, 3, 4], "$.instances[0].bbox", "two corners"),
    (("instances", 0, "zorder"), 1, "$.instances[0].zorder", "did you mean 'z_order'"),
    (("instances", 0, "a b"), 1, '$.instances[0]["a b"]', "known keys are"),
    (("annos",), [], "$.annos", "published format"),
    (BOX, ..., "$.instances[0]", "no location"),
    (BOX, None, "$.instances[0].box", "null, not an array"),
    (BOX, [1, 2, 3], "$.instances[0].box", "3 items, not 4"),
    (BOX, [1, 2, 3, "4"], "$.instances[0].box[3]", "without quotes"),
    (BOX, [1, 2, 3, math.inf], "$.instances[0].box[3]", "infinite"),
    (BOX, [60, 50, 60, 200], "$.instances[0].box", "no area"),
    (BOX, [300, 200, 60, 50], "$.instances[0].box", "write [300, 200, 360, 250]"),  # fits as xywh
    (BOX, [300, 200, 60, 150], "$.instances[0].box", "write [60, 150, 300, 200]"),  # leaves the canvas as xywh
    (BOX, [200, 50, 100, 120], "$.instances[0].box", "looks like [x, y, width, height]"),
    (BOX, [600, 50, 700, 200], "$.instances[0].box", "outside the 512 x 256 canvas"),
    (BOX, [-90, 50, 0, 200], "$.instances[0].box", "outside"),
    (BOX, [0, 0, 1e308, 1e308], "$.instances[0].box[2]", "far off any canvas"),
    (POINT, [512.5, 90], "$.instances[1].point", "outside"),
    (POINT, [400], "$.instances[1].point", "1 items, not 2"),
    (POINT, {"x": 1, "y": 2}, "$.instances[1].point", "write [x, y]"),
    (STROKE, [[1, 1]], "$.instances[2].scribble", "one point"),
    (STROKE, [], "$.instances[2].scribble", "no points"),
    (STROKE, [1, 1, 2, 2], "$.instances[2].scribble", "flat list"),
    (STROKE, [[1, 1], [2, None]], "$.instances[2].scribble[1][1]", "null, not a number"),
    (STROKE, [[900, 1], [901, 1]], "$.instances[2].scribble", "every point"),
    (STROKE, [[1, 1]] * 10_001, "$.instances[2].scribble", "10001 points"),
    (("instances", 2, "z_order"), 1.5, "$.instances[2].z_order", "not an integer"),
    (("instances", 2, "z_order"), "2", "$.instances[2].z_order", "not an integer"),
    (("instances", 2, "z_order"), True, "$.instances[2].z_order", "not an integer"),
    (MASK, "abc", "$.instances[3].mask", "not an object"),
    ((*MASK, "size"), [512, 256], "$.instances[3].mask.size", "height comes first"),
    ((*MASK, "size"), [255, 512], "$.instances[3].mask.size", "[height, width] = [256, 512]"),
    ((*MASK, "size"), ..., "$.instances[3].mask.size", "missing"),
    ((*MASK, "counts"), ..., "$.instances[3].mask.counts", "missing"),
    ((*MASK, "counts"), [1000, 500], "$.instances[3].mask.counts", "add up to 1500"),
    ((*MASK, "counts"), [131072], "$.instances[3].mask.counts", "no pixel set"),
    ((*MASK, "counts"), "oooo", "$.instances[3].mask.counts", "middle of a number"),
    ((*MASK, "counts"), 5, "$.instances[3].mask.counts", "not a string"),
    ((*MASK, "cuonts"), 5, "$.instances[3].mask.cuonts", "did you mean 'counts'"),
]


@pytest.mark.parametrize(("steps", "value", "path", "says"), FAULTS)
def test_a_fault_is_named_at_its_place(steps, value, path, says):
    with pytest.raises(SceneError) as caught:
        Scene.from_dict(changed(*steps, to=value))
    problem = next(p for p in caught.value.problems if p.path == path)
    assert says in str(problem)
    assert problem.severity == "error"
    assert problem.fix


def test_all_faults_come_together():
    data = changed("width", to="wide")
    data["instances"][0]["box"] = [1]
    data["instances"][1]["caption"] = ""
    data["instances"][2]["colour"] = "red"
    data["instances"][3]["z_order"] = None
    with pytest.raises(SceneError) as caught:
        Scene.from_dict(data)
    assert [p.path for p in caught.value.problems] == [
        "$.width", "$.instances[0].box", "$.instances[1].caption", "$.instances[2].colour", "$.instances[3].z_order",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "value", "says"),
    [
        (BOX, [-10, 50, 300, 300], re.escape("cut to [0, 50, 300, 256]")),
        (BOX, [0.1, 0.2, 0.5, 0.9], "within one pixel.*multiply fractions"),
        (STROKE, [[1, 1], [600, 1]], "1 of 2 points outside"),
    ],
)
def test_what_can_be_mended_is_mended_with_a_warning(steps, value, says):
    with pytest.warns(SceneWarning, match=says):
        scene = Scene.from_dict(changed(*steps, to=value))
    assert scene.instances[0].box.y1 <= 1
    assert all(0 <= v <= 1 for pair in scene.instances[2].scribble.points for v in pair)


def test_too_many_instances():
    with pytest.raises(SceneError, match=r"1001 items.*at most 1000"):
        Scene.from_dict(changed("instances", to=GOOD["instances"][1:2] * 1001))
    assert len(Scene.from_dict(changed("instances", to=GOOD["instances"][1:2] * 1000)).instances) == 1000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b"[1, 2", "line 1, column 6"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "thousands of digits"),
        (b"null", "null, not an object"),
        (b"[]", "not an object"),
        (json.dumps(GOOD).replace('"width"', '"width": 9, "width"').encode(), r"\$.width: is given twice"),
        (json.dumps(GOOD).replace('"point"', '"point": 9, "point"').encode(), r"\[1\].point: is given twice"),
        (b'{"images": [], "annotations": []}', "COCO file"),
        (b'{"version": 1, "prompt": "\\ud800", "width": 64, "height": 64, "instances": []}', "surrogate"),
    ],
)  # fmt: skip
def test_faults_of_the_text(tmp_path, content, says):
    (tmp_path / "scene.json").write_bytes(content)
    with pytest.raises(SceneError, match=says):
        load_scene(tmp_path / "scene.json")


def test_nan_and_infinity_are_found_in_a_file(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps(changed(*POINT, to=[math.nan, -math.inf])))
    assert [p.path for p in check_scene(tmp_path / "s.json").problems] == [
        "$.instances[1].point[0]",
        "$.instances[1].point[1]",
    ]


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("instancediffusion.scene.sources.MAX_FILE_BYTES", 1 << 20)
    (tmp_path / "s.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(SceneError, match="larger than 1 MB"):
        load_scene(tmp_path / "s.json")


@pytest.mark.filterwarnings("ignore:.*within one pixel")
@settings(max_examples=60)
@given(scenes())
def test_reading_undoes_writing(scene):
    data = json.loads(json.dumps(scene.to_dict(), allow_nan=False))
    again = Scene.from_dict(data)
    assert alike(scene, again)
    assert again.to_dict() == Scene.from_dict(again.to_dict()).to_dict()
    assert alike(scene_from_text(scene_text(scene)), scene)


def test_pixels_come_back_as_they_were_written():
    data = changed(*POINT, to=[400.25, 33.3])
    data["width"], data["height"] = 600, 333
    data["instances"] = data["instances"][:3]
    assert Scene.from_dict(data).to_dict() == data


def test_a_file_is_written_for_people_too(tmp_path):
    scene = Scene.from_dict(GOOD)
    save_scene(scene, tmp_path / "s.json")
    assert load_scene(tmp_path / "s.json") == scene
    assert '  {"caption": "a panda", "box": [60, 50, 300, 200], "z_order": 1},\n' in (tmp_path / "s.json").read_text()


class TestPng:
    """Masks given as PNG files."""

    BITMAP = np.arange(20 * 30).reshape(20, 30) % 7 < 3

    @staticmethod
    def png(array, mode=None, **options):
        content = io.BytesIO()
        image = Image.fromarray(array)
        (image.convert(mode) if mode else image).save(content, "PNG", **options)
        return content.getvalue()

    @pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "LA", "P", "I;16"])
    def test_every_mode(self, mode):
        array = self.BITMAP.astype(np.uint8) * (1 if mode == "P" else 255)
        if mode == "P":
            image = Image.fromarray(array)
            image.putpalette([10, 20, 30, 200, 100, 50])
            content = io.BytesIO()
            image.save(content, "PNG")
            data = content.getvalue()
        elif mode == "I;16":
            data = self.png(self.BITMAP.astype(np.uint16) * 300)
        else:
            data = self.png(array, mode)
        assert (Mask.from_png(data, (20, 30)).array == self.BITMAP).all()

    def test_transparent_pixels_are_not_set(self):
        array = np.full((20, 30, 4), 255, dtype=np.uint8)
        array[..., 3] = self.BITMAP * 255
        assert (Mask.from_png(self.png(array), (20, 30)).array == self.BITMAP).all()

    def test_hostile_files_are_refused_before_they_are_unpacked(self):
        good = self.png(self.BITMAP.astype(np.uint8) * 255)
        huge = good[:16] + (60_000).to_bytes(4, "big") * 2 + good[24:]
        for data in (b"", b"GIF89a", good[:20], good[:40], huge, good[:-30], self.png(np.zeros((20, 30), np.uint8))):
            with pytest.raises(SceneError):
                Mask.from_png(data, (20, 30))
        for position in range(8, len(good), 3):
            spoilt = bytearray(good)
            spoilt[position] ^= 0x5A
            try:
                assert Mask.from_png(bytes(spoilt), (20, 30)).size == (20, 30)
            except SceneError:
                pass

    def scene(self, source):
        instance = {"caption": "a", "mask": {"png": source}}
        return {"version": 1, "prompt": "p", "width": 30, "height": 20, "instances": [instance]}

    def test_inside_the_scene_and_beside_it(self, tmp_path):
        data = self.png(self.BITMAP.astype(np.uint8) * 255)
        inside = Scene.from_dict(self.scene("data:image/png;base64," + base64.b64encode(data).decode()))
        assert (inside.instances[0].mask.array == self.BITMAP).all()
        (tmp_path / "masks").mkdir()
        (tmp_path / "masks" / "a.png").write_bytes(data)
        (tmp_path / "s.json").write_text(json.dumps(self.scene("masks/a.png")))
        assert load_scene(tmp_path / "s.json") == inside

    @pytest.mark.parametrize(
        "source",
        ["../a.png", "/etc/passwd", "C:/a.png", "..\\a.png", "none.png", "data:image/png;base64,!", "data:text/plain,a",
         "a\0.png", "link.png", "", "x" * 5000],
    )  # fmt: skip
    def test_only_files_beside_the_scene_are_read(self, tmp_path, source):
        folder = tmp_path / "scenes"
        folder.mkdir()
        (tmp_path / "a.png").write_bytes(self.png(self.BITMAP.astype(np.uint8) * 255))
        (folder / "link.png").symlink_to(tmp_path / "a.png")
        (folder / "s.json").write_text(json.dumps(self.scene(source)))
        with pytest.raises(SceneError) as caught:
            load_scene(folder / "s.json")
        assert caught.value.problems[0].path == "$.instances[0].mask.png"

    def test_a_scene_without_a_folder_reads_no_file(self):
        with pytest.raises(SceneError, match="has no folder"):
            Scene.from_dict(self.scene("a.png"))
