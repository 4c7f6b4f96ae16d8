"""Ten thousand spoilt scene files: each loads or raises `SceneError`, and none takes long."""

import copy
import json
import random
import time
import warnings
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from instancediffusion.errors import SceneError, SceneWarning
from instancediffusion.scene import json_schema, load_scene, save_scene, scene_from_text

SEEDS = ["panda_balloons", "corgi_kitchen", "test0_scribble_corgi_kitchen", "test2_bbox_apple_pear1", "palm_point"]
ODD = [
    None, True, False, 0, -1, 1, 15, 16, 1e308, -1e308, 5e-324, 10**400, float("nan"), float("inf"), 0.5, "", " ", "x",
    "NaN", "0", "\ud800", "\0", [], {}, [[]], [None] * 4, [0, 0, 0, 0], [1, 2, 3, 4], [[1, 2]], [[1, 2], [3, 4]],
    {"size": [512, 512], "counts": "oooo"}, {"png": "../x"}, {"png": "data:image/png;base64,AAAA"}, "a" * 3000,
    [1e9] * 500, [[0.0, 1.0]] * 300, [{}] * 1100, {"a": {"b": {"c": []}}}, 2**63, -(2**70),
]  # fmt: skip
NAMES = ["caption", "box", "bbox", "point", "scribble", "mask", "z_order", "version", "prompt", "width", "annos",
         "instances", "images", "annotations", "$schema", "", "\n", "size", "counts", "png", "colour"]  # fmt: skip


def places(data, path=()):
    """Yield the path of every value of JSON data (of long lists: of the first items)."""
    items = data.items() if isinstance(data, dict) else enumerate(data[:30]) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def spoil_data(data, rng):
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        path = rng.choice(list(places(data)) or [()])
        if not path:
            return data
        parent = data
        for step in path[:-1]:
            parent = parent[step]
        key, value = path[-1], parent[path[-1]]
        how = rng.randrange(8)
        if how == 0:
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[rng.choice(NAMES)] = parent.pop(key)
        elif how == 2 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(rng.choice(ODD)))
        elif how == 3 and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            parent[key] = rng.choice([-value, value * 1000, value + 0.5, str(value), [value], value / 1e9])
        elif how == 4 and isinstance(value, str) and value:
            at = rng.randrange(len(value))
            parent[key] = value[:at] + chr(rng.choice([0, 48, 79, 111, 200, 0x1F600])) + value[at + rng.randrange(3) :]
        elif how == 5 and isinstance(value, list):
            parent[key] = value * rng.choice([0, 2, 50])
        elif how == 6:
            parent[key] = {key if isinstance(key, str) else "x": value}
        else:
            parent[key] = copy.deepcopy(rng.choice(ODD))
    return data


def spoil_text(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        if not content:
            break
        at = rng.randrange(len(content))
        how = rng.randrange(5)
        if how == 0:
            content[at] = rng.randrange(256)
        elif how == 1:
            del content[at : at + rng.randrange(1, 40)]
        elif how == 2:
            content[at:at] = rng.choice(
                [b'"', b"[", b"{", b",", b"}", b"NaN", b"-", b"1e999", b"\\u", b"\xff", b"[" * 3000]
            )
        elif how == 3:
            other = rng.randrange(len(content))
            content[at:at] = content[other : other + rng.randrange(1, 60)]
        else:
            content = content[:at] or content
    return bytes(content)


@pytest.mark.filterwarnings("ignore::instancediffusion.errors.SceneWarning")
def test_ten_thousand_spoilt_files(tmp_path):
    rng = random.Random(20240229)
    sources = []
    for name in SEEDS:
        path = Path("examples") / f"{name}.json"
        save_scene(load_scene(path), tmp_path / "official.json", format="official")
        sources += [path.read_bytes(), (tmp_path / "official.json").read_bytes()]
    schema = Draft202012Validator(json_schema())
    target, loaded, slowest, outcomes = tmp_path / "s.json", 0, 0.0, set()
    for number in range(10_000):
        source = rng.choice(sources)
        if number % 2:
            content = spoil_text(source, rng)
        else:
            content = json.dumps(spoil_data(json.loads(source), rng)).encode()
        began = time.process_time()
        try:
            if number % 50 < 2:
                target.write_bytes(content)
                load_scene(target)
            else:  # the same reading, without the disk
                scene_from_text(content)
        except SceneError as error:
            assert str(error)
            assert any(problem.severity == "error" for problem in error.problems)
            outcomes.update(problem.message.split()[0] for problem in error.problems[:3])
        else:
            loaded += 1
            data = json.loads(content.decode("utf-8-sig"))
            if loaded % 20 == 0 and ("prompt" in data or "version" in data):
                schema.validate(data)  # what is loaded is what the schema allows
        slowest = max(slowest, time.process_time() - began)
    assert slowest < 1.0
    assert 100 < loaded < 9_900
    assert len(outcomes) > 10


def test_the_largest_scene_is_read_in_time(tmp_path):
    rng = random.Random(0)
    stroke = [[rng.uniform(-5, 8200), rng.uniform(0, 8192)] for _ in range(50)]
    instances = [
        {"caption": f"thing {i}", "box": [0, 0, 8192, 8192], "scribble": stroke, "z_order": i} for i in range(1000)
    ]
    for instance in instances[:50]:
        instance["mask"] = {"size": [8192, 8192], "counts": [8192 * 8192 - 1, 1]}
    scene = {"version": 1, "prompt": "p", "width": 8192, "height": 8192, "instances": instances}
    (tmp_path / "s.json").write_text(json.dumps(scene))
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SceneWarning)
        assert len(load_scene(tmp_path / "s.json").instances) == 1000
    assert time.process_time() - began < 3
