"""The page from labelled pictures to a model, scores and new labels: its commands, on 20 pictures with every quirk."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instancediffusion import Mask
from instancediffusion.datasets import open_dataset, usable
from instancediffusion.evaluation import EvaluationReport
from instancediffusion.geometry import mask_box
from tests.conftest import ROOT
from tests.evaluation.suites.tiny_networks import tiny_detr
from tests.tiny_pipeline import tiny_pipeline

WIDTH, HEIGHT = 96, 80
BOX = [20, 16, 40, 48]


def write_pictures(folder: Path) -> None:
    """Twenty pictures with a red dog or a blue cat each, as tools of many kinds write them down."""
    folder.mkdir()
    images, annotations = [], []
    for number in range(20):
        name, stored = f"{number:06d}.jpg", f"{number:06d}.jpg"
        if number == 1:
            name = f"..\\upload\\{stored}"
        if number == 2:
            name = f"https://pictures.example.org/set/{stored}?signature=0123456789abcdef"
        if number == 3:
            name = stored = "猫と犬.jpg"
        pixels = np.full((HEIGHT, WIDTH, 3), 40 + 9 * number, np.uint8)
        x, y, w, h = BOX
        pixels[y : y + h, x : x + w] = (200, 30, 30) if number % 2 else (30, 30, 200)
        image, options = Image.fromarray(pixels), {}
        if number == 4:  # stored lying, seen upright
            image, exif = image.transpose(Image.Transpose.ROTATE_90), Image.Exif()
            exif[0x0112] = 6
            options["exif"] = exif
        if number != 5:  # the sixth is not there
            image.save(folder / stored, quality=95, **options)
        if number == 6:
            (folder / stored).write_bytes((folder / stored).read_bytes()[:400])
        size = {"width": WIDTH, "height": HEIGHT} if number != 7 else {"width": -1, "height": -1}
        images.append({"id": number if number != 9 else 8, "file_name": name, **size})  # two pictures of one id
        label = {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": list(BOX), "iscrowd": 0}
        annotations.append(label | {"area": w * h, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]})
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[16:64, 20:60] = True
    annotations[10] |= {"image_id": "10", "category_id": "1"}  # numbers as text
    annotations[11]["segmentation"] = annotations[11]["segmentation"][0]  # a flat polygon
    annotations[12]["segmentation"] = None
    annotations[13] |= {"segmentation": [], "bbox": [20, 16, 400, 400]}  # beyond the edge
    annotations[14]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": Mask.from_array(mask).counts}
    extra = {"bbox": [0, 0, 9, 9], "iscrowd": 0, "area": 81, "segmentation": []}
    annotations += [
        {"id": 100, "image_id": 15, "category_id": 1, **extra, "iscrowd": 1},
        {"id": 101, "image_id": 16, "category_id": 77, **extra},  # a category without a name
        {"id": 102, "image_id": 17, "category_id": 1, **extra, "bbox": "none"},
        {"id": 103, "image_id": 999, "category_id": 1, **extra},  # of no picture
    ]
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::instancediffusion.errors.SceneWarning")
def test_the_page_runs_as_it_stands_on_twenty_pictures(tmp_path: Path) -> None:
    (script,) = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "docs" / "photographs.md").read_text(), re.DOTALL | re.M)
    write_pictures(tmp_path / "coco")
    tiny_pipeline(tmp_path / "characters").save_pretrained(tmp_path / "model")
    chosen = {"BASE": str(tmp_path / "model"), "SIDE": "64", "STEPS": "2", "BATCH": "2", "DRAW_STEPS": "2"}
    chosen |= {"DEVICE": "cpu", "DETECTOR": tiny_detr(tmp_path / "detector"), "PYTHONPATH": str(ROOT / "src")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, **chosen, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = done.stdout + done.stderr
    for name in ("000005.jpg", "000006.jpg", "000007.jpg"):
        assert name in told, f"{name} is not told"

    good = dict(usable(open_dataset(tmp_path / "coco")))
    parts = [dict(usable(open_dataset(tmp_path / "parts" / name))) for name in ("train", "val")]
    assert sum(map(len, parts)) >= 15 and len(parts[1]) >= 3
    assert {one.file_name for one in good.values()} >= {"猫と犬.jpg"}
    card = json.loads((tmp_path / "run" / "export" / "card.json").read_text())
    assert card["steps"] == {"diffusion": 2}

    report = EvaluationReport.load(tmp_path / "scores" / "report.json")
    group = report.group("coco")
    made = [path for path in (tmp_path / "made").glob("*.png") if "overlay" not in path.name]
    assert group.generated.pictures == group.composites.pictures == len(made) == len(parts[1])
    assert "bbox_ap" in group.generated.scores

    # What comes out as YOLO is what was asked for.
    labelled = {one.file_name: one for one in dict(usable(open_dataset(tmp_path / "labelled"))).values()}
    assert set(labelled) == {path.name for path in made}
    for asked in parts[1].values():
        (found,) = (one for name, one in labelled.items() if name.startswith(Path(asked.file_name).stem))
        assert found.category(0) == asked.category(0)
        assert np.abs(place(found) - place(asked)).max() < 1.5 / HEIGHT


def place(example):
    """The corners of the only instance, in fractions."""
    (one,) = example.scene.instances
    return np.array(one.box.xyxy if one.box is not None else mask_box(one.mask.array))
