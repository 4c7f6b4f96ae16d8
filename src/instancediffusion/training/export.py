"""Stage "export": the EMA weights of all stages as one folder that the pipeline opens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers.utils import SAFE_WEIGHTS_NAME

from instancediffusion.additions import LORA_FOLDER
from instancediffusion.checkpoints.cards import weights_sha256
from instancediffusion.checkpoints.folder import COMPONENTS, PIPELINE_CLASS, new_folder, save_part
from instancediffusion.checkpoints.index import INDEX, read_index
from instancediffusion.data.drawn_world import World
from instancediffusion.errors import SettingsError
from instancediffusion.scene.english import with_article
from instancediffusion.training.checkpoint import CHECKPOINT, freeze, load_checkpoint
from instancediffusion.training.config import Recipe
from instancediffusion.training.drawn_scenes import open_world
from instancediffusion.training.few_steps import STUDENT_SCHEDULER, write_lora
from instancediffusion.training.networks import Parts
from instancediffusion.training.objective import scheduler_config
from instancediffusion.training.pretrained import start_folder
from instancediffusion.training.schedule import Schedule
from instancediffusion.training.stages import decoder_task, diffusion_task, distillation_task


def export(recipe: Recipe, run: Path, output: Path, world: World | None = None) -> None:
    """Write unet, vae, text encoder and adapter in float16, tokenizer, scheduler, index and card.

    Of an adapter that was trained for a base, only the adapter is written, in float32: `from_pretrained` takes it along
    with the base. Of a distillation a LoRA file in float16 is written, and a card beside it; without LoRA layers, the
    teacher's folder with the student's UNet and adapter, which states the student's sampler as its own.

    Args:
        recipe: of the run.
        run: folder of the run; stages may still be going, their last checkpoints are taken.
        output: replaced if it is there.
        world: what the card lists the names of; None opens the built-in world.

    Raises:
        SettingsError: a stage has no checkpoint, or the scheduler's class does not exist.
    """
    if recipe.distillation.teacher:
        with new_folder(output, replace=True) as work:
            _write_student(recipe, run, work)
        return
    if recipe.diffusion.base:
        with new_folder(output, replace=True) as work:
            _write_adapter(recipe, run, work)
        return
    vae, trained = finished_autoencoder(recipe, run)
    task = diffusion_task(recipe, run)
    trained["diffusion"] = freeze(task, recipe.diffusion.optimiser, run / "diffusion")
    write_model(recipe, output, task.parts, vae, trained, world or open_world(recipe.world))


def write_model(
    recipe: Recipe, output: Path, parts: Parts, vae: AutoencoderKL, trained: dict[str, int], world: World
) -> None:
    """Write a whole model.

    Args:
        recipe: what it was made by.
        output: replaced if it is there.
        parts: text model, UNet and adapter as they are to be written; they are in float16 afterwards.
        vae: the autoencoder, likewise.
        trained: by stage, the steps it was trained for, beside those of its start.
        world: what the card lists the names of.

    Raises:
        SettingsError: the scheduler's class does not exist.
    """
    scheduler = make_scheduler(recipe)
    parts.adapter.remove()
    networks: dict[str, Any] = {
        "vae": vae,
        "text_encoder": parts.text.model,
        "unet": parts.unet,
        "adapter": parts.adapter,
    }
    with new_folder(output, replace=True) as work:
        for name, module in networks.items():
            save_part(module.to(torch.float16), work / name)
        _prefix_tensors(work / "text_encoder" / SAFE_WEIGHTS_NAME, "text_model.")
        save_part(parts.text.tokenizer, work / "tokenizer")
        for path in (work / "tokenizer").glob("tokenizer.json"):  # of fast tokenizers; others have two files
            _close_up(path)
        save_part(scheduler, work / "scheduler")
        index: dict[str, Any] = {
            "_class_name": PIPELINE_CLASS,
            **COMPONENTS,
            "scheduler": ["diffusers", recipe.export.scheduler],
            "default_settings": recipe.export.settings,
            **known_to(recipe, world),
        }
        _write(work / INDEX, index)
        side = parts.unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1) * recipe.autoencoder.patch
        _write(work / "card.json", _card(recipe, trained, weights_sha256(work), world, int(side)))


def _close_up(path: Path) -> None:
    """Take the blanks out of a JSON file: more than half of a tokenizer's."""
    value = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), "utf-8")


def _prefix_tensors(path: Path, prefix: str) -> None:
    """Give the tensors of a file the names of published CLIP text models, which every version of transformers reads."""
    tensors = {prefix + name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


def _write_adapter(recipe: Recipe, run: Path, work: Path) -> None:
    task = diffusion_task(recipe, run)
    steps = freeze(task, recipe.diffusion.optimiser, run / "diffusion")
    task.adapter.remove()
    save_part(task.adapter, work)
    card = {
        "name": recipe.name,
        "licence": recipe.export.licence,
        "pictures": recipe.export.pictures,
        "base": recipe.diffusion.base,
        "base_weights_sha256": task.parts.identity["base"],
        "steps": {"diffusion": steps},
        "pictures_seen": {"diffusion": task.schedule.pictures(steps)},
        "weights_sha256": weights_sha256(work),
    }
    _write(work / "card.json", card)


def _write_student(recipe: Recipe, run: Path, work: Path) -> None:
    task, config = distillation_task(recipe, run), recipe.distillation
    few, teacher = task.few, task.few.folder
    steps = freeze(task, config.optimiser, run / "distillation")
    settings = {"scheduler": STUDENT_SCHEDULER, "num_inference_steps": config.steps, "guidance_scale": 1.0}
    card: dict[str, Any] = {"name": recipe.name}
    if few.lora is not None:
        write_lora(few.lora, work / f"{recipe.name}-distilled-{config.steps}steps.safetensors")
        card |= {"licence": recipe.export.licence, "pictures": recipe.export.pictures, "settings": settings}
    else:
        shutil.copytree(
            teacher, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns("unet", "adapter", LORA_FOLDER)
        )
        few.student.adapter.remove()
        for name, module in few.trained.items():
            save_part(module.to(torch.float16), work / name)
        index = read_index(work)
        own = index.get("default_settings") or {}
        _write(work / INDEX, index | {"default_settings": own | settings})
        if (work / "card.json").is_file():
            card = json.loads((work / "card.json").read_text("utf-8")) | card
    card |= {
        "teacher_weights_sha256": few.teacher.identity["teacher"],
        "teacher_guidance_scale": few.guidance,
        "steps": _added(card.get("steps", {}), {"distillation": steps}),
        "pictures_seen": _added(card.get("pictures_seen", {}), {"distillation": task.schedule.pictures(steps)}),
        "weights_sha256": weights_sha256(work),
    }
    _write(work / "card.json", card)


def finished_autoencoder(recipe: Recipe, run: Path) -> tuple[AutoencoderKL, dict[str, int]]:
    """Take the run's autoencoder, its decoder as far as it was sharpened.

    Returns:
        The autoencoder, and the steps its parts were trained for in this run.
    """
    task = decoder_task(recipe, run)
    state = load_checkpoint(run / "autoencoder" / CHECKPOINT)
    trained = {"autoencoder": int(state["step"])} if state else {}
    if (run / "decoder" / CHECKPOINT).exists():
        trained["decoder"] = freeze(task, recipe.autoencoder.decoder, run / "decoder")
    return task.model, trained


def make_scheduler(recipe: Recipe) -> Any:
    """Build the recipe's stock scheduler on the schedule of the training.

    Raises:
        SettingsError: no such class.
    """
    kind = getattr(diffusers, recipe.export.scheduler, None)
    if kind is None:
        raise SettingsError(f"export.scheduler = {recipe.export.scheduler!r}: not a scheduler of diffusers")
    return kind(**scheduler_config(recipe.diffusion), **recipe.export.scheduler_options)


def known_to(recipe: Recipe, world: World) -> dict[str, Any]:
    """What shows that a caption is beyond the model: its vocabulary, or with a teacher the classes it can draw."""
    if not recipe.text.teacher:
        return {"vocabulary": list(world.vocabulary())}
    captions = [with_article(kind.name) for kind in world.kinds]
    return {"familiar": {"captions": captions, "likeness": recipe.text.likeness}}


def _card(recipe: Recipe, trained: dict[str, int], weights: str, world: World, side_px: int) -> dict[str, Any]:
    """What a user wants to know of a model before using it; its pictures have sides of `side_px`."""
    before = json.loads((start_folder(recipe.start) / "card.json").read_text("utf-8")) if recipe.start else {}
    if not recipe.start_networks:  # they have seen nothing of it
        for counts in ("steps", "pictures_seen"):
            before.get(counts, {}).pop("diffusion", None)
    schedules = {
        "autoencoder": Schedule(recipe.autoencoder.optimiser),
        "decoder": Schedule(recipe.autoencoder.decoder),
        "diffusion": Schedule(recipe.diffusion.optimiser, recipe.diffusion.stages),
    }
    pictures = {stage: schedules[stage].pictures(steps) for stage, steps in trained.items()}
    return {
        "name": recipe.name,
        "licence": recipe.export.licence,
        "pictures": recipe.export.pictures,
        "side_px": side_px,
        **({"started_from_sha256": before.get("weights_sha256")} if recipe.start else {}),
        "steps": _added(before.get("steps", {}), trained),
        "pictures_seen": _added(before.get("pictures_seen", {}), pictures),
        "scenes": recipe.world.scenes,
        "world": recipe.to_dict()["world"]["options"],
        "objects": [kind.name for kind in world.kinds],
        "colours": sorted({colour for kind in world.kinds for colour in kind.colours}),
        "backgrounds": [background.name for background in world.backgrounds],
        "weights_sha256": weights,
    }


def _added(before: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    """The counts of the start and of this run, added."""
    return {stage: before.get(stage, 0) + more.get(stage, 0) for stage in {**before, **more}}


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
