"""Publish a pipeline, and use it elsewhere by its name: with a LoRA and a ControlNet, and to edit a picture.

    python examples/publish_and_edit.py FOLDER OWNER/NAME SCENE.json WORK

FOLDER is a saved pipeline; it is pushed to the hub under OWNER/NAME (`HF_ENDPOINT` says which hub, `HF_TOKEN` who you
are). LoRA and ControlNet are new ones of random weights, made for its UNet into the folder WORK. Everything after the
push runs in fresh processes that know the model by its name alone. Needs `instancediffusion[adapters]`.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image

from instancediffusion import InstanceDiffusionPipeline

STEPS = 3


def publish(folder: Path, name: str) -> None:
    """Push a saved pipeline to the hub."""
    InstanceDiffusionPipeline.from_pretrained(folder).push_to_hub(name)


def make_additions(folder: Path, work: Path) -> tuple[Path, Path]:
    """A LoRA file and a ControlNet folder for the UNet of a saved pipeline."""
    torch.manual_seed(0)
    net = ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(folder / "unet"))
    with torch.no_grad():  # a new ControlNet does nothing
        for parameter in net.parameters():
            if not parameter.any():
                parameter.add_(torch.randn(parameter.shape) * 0.05)
    net.save_pretrained(work / "controlnet")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(work / "lora", unet_lora_layers=get_peft_model_state_dict(unet))
    return work / "lora" / "pytorch_lora_weights.safetensors", work / "controlnet"


def generate(*arguments: object) -> None:
    """Run the command line in a fresh process."""
    command = [sys.executable, "-m", "instancediffusion", "generate", "--steps", STEPS, "--quiet", *arguments]
    subprocess.run([str(part) for part in command], check=True)


def main(folder: str, name: str, scene_file: str, work_folder: str) -> None:
    """Publish, draw, edit, and check that what did not change stayed."""
    work = Path(work_folder)
    work.mkdir(parents=True, exist_ok=True)
    publish(Path(folder), name)
    lora, controlnet = make_additions(Path(folder), work)
    control = work / "control.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(control)
    with_both = ["--lora", f"{lora}:0.8", "--controlnet", controlnet, "--control", control]
    generate(scene_file, "--model", name, "--seed", 1, "-o", work / "plain")
    generate(scene_file, "--model", name, "--seed", 1, "-o", work / "drawn", *with_both)

    scene = json.loads(Path(scene_file).read_text())
    moved = dict(scene, instances=[dict(one) for one in scene["instances"]])
    x0, y0, x1, y1 = moved["instances"][0]["box"]
    moved["instances"][0]["box"] = [0, 0, x1 - x0, y1 - y0]
    moved_file = work / "moved.json"
    moved_file.write_text(json.dumps(moved))
    first = work / "drawn" / f"{Path(scene_file).stem}_1.png"
    generate(moved_file, "--model", name, "--edit", first, "-o", work / "edited", *with_both)

    plain = np.asarray(Image.open(work / "plain" / first.name)).astype(int)
    before = np.asarray(Image.open(first)).astype(int)
    after = np.asarray(Image.open(work / "edited" / "moved_1.png")).astype(int)
    touched = np.zeros(before.shape[:2], dtype=bool)
    unit = before.shape[1] / scene["width"], before.shape[0] / scene["height"]
    for a, b, c, d in ((x0, y0, x1, y1), (0, 0, x1 - x0, y1 - y0)):
        touched[round(b * unit[1]) : round(d * unit[1]), round(a * unit[0]) : round(c * unit[0])] = True
    if not (plain != before).any():
        raise SystemExit("LoRA and ControlNet changed nothing")
    if (before[~touched] != after[~touched]).any() or not (before[touched] != after[touched]).any():
        raise SystemExit("editing changed something else than it should")
    print("published, drawn with LoRA and ControlNet, edited; the rest is the same to the pixel")


if __name__ == "__main__":
    main(*sys.argv[1:])
