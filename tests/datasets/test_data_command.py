from click.testing import CliRunner
from tests.datasets.test_datasets import coco, picture

from instancediffusion.cli.data import data
from instancediffusion.datasets import open_dataset


def run(*args):
    return CliRunner().invoke(data, [str(arg) for arg in args], catch_exceptions=False)


def make(folder, count=10):
    images = [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(count)]
    boxes = [{"id": n, "image_id": n, "category_id": 18, "bbox": [1, 2, 8 + n, 9]} for n in range(count)]
    coco(folder, images=images, annotations=boxes)
    for n in range(count):
        picture(folder / "val2017" / f"{n}.png")
    return folder


def test_a_coco_folder_is_told_checked_converted_and_split(tmp_path):
    source = make(tmp_path / "in")
    told = run("info", source)
    assert told.exit_code == 0 and "coco, 10 of 10" in told.output and "box 10" in told.output
    assert run("check", source).exit_code == 0
    assert run("convert", source, tmp_path / "yolo", "--to", "yolo").exit_code == 0
    assert run("split", source, tmp_path / "parts", "--part", "train=0.7", "--part", "val=0.3").exit_code == 0
    parts = [open_dataset(tmp_path / "parts" / name) for name in ("train", "val")]
    names = [sorted(part[n].file_name for n in range(len(part))) for part in parts]
    assert [len(part) for part in names] == [7, 3] and sorted(names[0] + names[1]) == sorted(
        f"{n}.png" for n in range(10)
    )
    (source / "val2017" / "3.png").write_bytes(b"no picture")
    failed = run("check", source)
    assert failed.exit_code == 2 and "3.png" in failed.stderr
