"""The stages of a run, in order, and where each keeps its things.

RUN/scenes/00000/ ...       drawn once, then encoded
RUN/autoencoder/            checkpoint, metrics, previews; vae/: what the latents were made with, fixed from then on
RUN/latents.safetensors     without a learned autoencoder: the code of the latents
RUN/decoder/                checkpoint, metrics, previews of the autoencoder's decoder
RUN/words/                  checkpoint, metrics; tokenizer/, lessons.safetensors; with a teacher only
RUN/text/                   checkpoint, metrics; tokenizer/ or grammar.json
RUN/cells/                  checkpoint, metrics; for adapters with cell features only
RUN/diffusion/              checkpoint, metrics, previews

With a base there is nothing to learn but the adapter, so the stages decoder and text do not exist, and the
latents are the base's. With a start there is no text stage, everything goes on from the start, and what is not trained
on stays as it was; but for the autoencoder's encoder, which is always written anew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

from instancediffusion.data import SceneCache, latents_name
from instancediffusion.errors import SettingsError
from instancediffusion.scene.completion import CaptionCompletion
from instancediffusion.training.autoencoder import AutoencoderTask, normalise_latents
from instancediffusion.training.base import BaseLatents, base_folder, load_parts
from instancediffusion.training.blocks import BlockCode
from instancediffusion.training.cells import CellsTask
from instancediffusion.training.config import Recipe
from instancediffusion.training.decoder import DecoderTask, build_measured
from instancediffusion.training.diffusion import DiffusionTask
from instancediffusion.training.encoder import write_encoder
from instancediffusion.training.frozen import freeze
from instancediffusion.training.language.prepare import load_grammar, load_lessons, prepare_grammar, prepare_lessons
from instancediffusion.training.language.reading import ReadingTask
from instancediffusion.training.language.words import WordsTask
from instancediffusion.training.latents import encode_scenes, sample_images
from instancediffusion.training.loop import CHECKPOINT, fit
from instancediffusion.training.naming import NamingTask
from instancediffusion.training.networks import Parts, build_parts
from instancediffusion.training.processes import open_accelerator
from instancediffusion.training.scenes import draw_scenes, open_world
from instancediffusion.training.scoring import Scorer
from instancediffusion.training.sharpening import SharpeningTask
from instancediffusion.training.start import LATENT_CODE, load_start, load_text, start_folder
from instancediffusion.training.tokenizer import train_tokenizer
from instancediffusion.worlds import World

LEARNED_STAGES = ("scenes", "autoencoder", "latents", "words", "text", "cells", "diffusion", "decoder", "export")
STAGES = ("scenes", "latents", "decoder", "words", "text", "cells", "diffusion", "export")
ADAPTER_STAGES = ("scenes", "latents", "cells", "diffusion", "export")
STARTED_STAGES = ("scenes", "latents", "decoder", "cells", "diffusion", "export")
CODE = LATENT_CODE
CORPUS = 5_000
"""Scenes whose texts tokenizer and text model are made from; enough to meet every word of the world many times."""
ENCODED_TOGETHER = 8
"""Pictures that a base's or a learned autoencoder encodes at once; its maps are large."""
MEASURED = 256
"""Pictures that the scale of a learned autoencoder's latents is measured on."""
VAE = "vae"
"""Where the fixed autoencoder stands in the folder of its stage."""


def names(recipe: Recipe) -> tuple[str, ...]:
    """The stages of a recipe, in order."""
    whole = LEARNED_STAGES if recipe.autoencoder.learned else STAGES
    stages = STARTED_STAGES if recipe.start else ADAPTER_STAGES if recipe.diffusion.base else whole
    asked = {"cells": recipe.adapter.get("cell_features"), "words": recipe.text.teacher}
    return tuple(name for name in stages if asked.get(name, True))


def scenes(recipe: Recipe, run: Path, world: World | None = None) -> None:
    """Draw the recipe's scenes, from another world than the built-in one if it is given."""
    world = world or open_world(recipe.world)
    draw_scenes(recipe.world, run / "scenes", world, CaptionCompletion(world.caption_choices()))


def autoencoder(recipe: Recipe, run: Path, *, stop_after: int | None = None) -> None:
    """Train encoder and decoder together.

    Raises:
        SettingsError: latents were made with it already; another encoder would give them another meaning.
    """
    config, fixed = recipe.autoencoder.optimiser, run / "autoencoder" / VAE
    if fixed.exists():
        raise SettingsError(
            f"{fixed}: the autoencoder is fixed, latents may have been made with it; train on its decoder (the stage "
            "decoder), or use another run folder"
        )
    depends = _part(recipe, "world", "autoencoder")
    fit(autoencoder_task(recipe, run), config, run / "autoencoder", depends, stop_after=stop_after)


def autoencoder_task(recipe: Recipe, run: Path) -> AutoencoderTask:
    """Put the autoencoder's stage together."""
    return AutoencoderTask(recipe.autoencoder, SceneCache(run / "scenes"))


def fixed_autoencoder(recipe: Recipe, run: Path) -> Path:
    """Fix the autoencoder of a run (once): the running mean of its weights, its latents scaled; or the start's.

    Returns:
        The folder that holds it as `vae/`.
    """
    folder = run / "autoencoder"
    if not (folder / VAE).exists():
        if recipe.start:
            model = AutoencoderKL.from_pretrained(_start(recipe) / VAE, torch_dtype=torch.float32)
        else:
            task = autoencoder_task(recipe, run)
            freeze(task, recipe.autoencoder.optimiser, folder)
            normalise_latents(model := task.model, sample_images(task.cache, MEASURED))
        model.save_pretrained(folder / f".{VAE}")
        (folder / f".{VAE}").rename(folder / VAE)  # a folder that can be seen is whole
    return folder


def latents(recipe: Recipe, run: Path) -> None:
    """Fix the autoencoder, or the latents' code (once); encode every shard that is not, at every size asked for."""
    cache, config = SceneCache(run / "scenes"), recipe.autoencoder
    sizes = [stage.sample_size for stage in recipe.diffusion.stages]
    if recipe.diffusion.base:
        base = BaseLatents(base_folder(recipe.diffusion.base))
    elif config.learned:
        base = BaseLatents(fixed_autoencoder(recipe, run), config.patch)
    else:
        base = None
    if base:
        encode_scenes(base.encode, run / "scenes", cache.image_px // base.side, sizes, ENCODED_TOGETHER)
        return
    if not (run / CODE).exists():
        measured = _code(recipe, sample_images(cache))
        write_encoder(build_measured(config, cache.image_px), measured)  # one that is too narrow is told at once
        measured.save(run / CODE)
    code = load_code(run)
    patch = config.patch

    def encode(images: Tensor) -> Tensor:
        return functional.pixel_unshuffle(code.encode(images), patch)

    encode_scenes(encode, run / "scenes", cache.image_px // (code.side * patch), sizes)


def _code(recipe: Recipe, images: Tensor) -> BlockCode:
    config = recipe.autoencoder
    if recipe.start:
        known = load_code(start_folder(recipe.start))
        return known.widened(images, config.latent_channels, config.whitening)
    side = 2 ** (len(config.block_out_channels) - 1)
    return BlockCode.measure(images, config.latent_channels, side, config.whitening)


def decoder(recipe: Recipe, run: Path, *, stop_after: int | None = None) -> None:
    """Train the decoder; the diffusion stage does not need it."""
    config, depends = recipe.autoencoder.decoder, _part(recipe, "start", "world", "autoencoder")
    fit(decoder_task(recipe, run), config, run / "decoder", depends, stop_after=stop_after)


def decoder_task(recipe: Recipe, run: Path) -> DecoderTask | SharpeningTask:
    """Put the decoder's stage together."""
    if recipe.autoencoder.learned:
        model = AutoencoderKL.from_pretrained(fixed_autoencoder(recipe, run) / VAE)
        return SharpeningTask(recipe.autoencoder, SceneCache(run / "scenes"), model)
    task = DecoderTask(recipe.autoencoder, SceneCache(run / "scenes"), load_code(run))
    if recipe.start:
        load_start(task.model, start_folder(recipe.start), "vae")
    write_encoder(task.model, task.code)
    return task


def words(recipe: Recipe, run: Path, *, stop_after: int | None = None, world: World | None = None) -> None:
    """Distil the text model from the recipe's teacher."""
    world = world or open_world(recipe.world)
    with open_accelerator().main_process_first():
        prepare_lessons(recipe.text, world, run / "words")
    depends = _part(recipe, "text")
    fit(words_task(recipe, run), recipe.text.words, run / "words", depends, stop_after=stop_after)


def words_task(recipe: Recipe, run: Path) -> WordsTask:
    """Put the stage together, from what `words` has prepared."""
    return WordsTask(recipe.text, *load_lessons(run / "words"))


def text(recipe: Recipe, run: Path, *, stop_after: int | None = None, world: World | None = None) -> None:
    """Train the text model by itself: with a teacher on from the stage "words", else from nothing."""
    if recipe.text.teacher:
        with open_accelerator().main_process_first():
            prepare_grammar(recipe.text, world or open_world(recipe.world), run / "text")
    task = text_task(recipe, run)
    if isinstance(task, ReadingTask) and not (run / "text" / CHECKPOINT).exists():
        before = words_task(recipe, run)
        freeze(before, recipe.text.words, run / "words")
        task.take_over(before)
    fit(task, recipe.text.optimiser, run / "text", _part(recipe, "text"), stop_after=stop_after)


def text_task(recipe: Recipe, run: Path) -> NamingTask | ReadingTask:
    """Put the text stage together; without a teacher, the tokenizer is made the first time."""
    if recipe.text.teacher:
        return ReadingTask(recipe.text, *load_lessons(run / "words"), load_grammar(run / "text"))
    folder = run / "text" / "tokenizer"
    texts = SceneCache(run / "scenes").all_texts(CORPUS)
    with open_accelerator().main_process_first():
        if not folder.exists():
            made = train_tokenizer(texts, vocabulary=recipe.text.vocabulary, length=recipe.text.length)
            made.save_pretrained(folder.with_name(".tokenizer"))
            folder.with_name(".tokenizer").rename(folder)  # a folder that can be seen is whole
    return NamingTask(recipe.text, texts, CLIPTokenizer.from_pretrained(folder))


def cells(recipe: Recipe, run: Path, *, stop_after: int | None = None) -> None:
    """Train the adapter's cell features by themselves, on encoded scenes."""
    depends = _part(recipe, "start", "world", "adapter", "locations", *(() if recipe.diffusion.base else ("text",)))
    fit(cells_task(recipe, run), recipe.cells, run / "cells", depends, stop_after=stop_after)


def cells_task(recipe: Recipe, run: Path) -> CellsTask:
    """Put the cells stage together."""
    return CellsTask(recipe, SceneCache(run / "scenes", need_latents=True), _parts(recipe, run))


def diffusion(recipe: Recipe, run: Path, *, stop_after: int | None = None, scorer: Scorer | None = None) -> None:
    """Train UNet and adapter, and the text model if it is to learn on, or an adapter for a base, on encoded scenes."""
    task = diffusion_task(recipe, run, scorer)
    sections = (
        *("start", "world", "adapter", "locations", "diffusion"),
        *(() if recipe.diffusion.base else ("text", "unet")),
    )
    depends, config = _part(recipe, *sections), recipe.diffusion.optimiser
    fit(task, config, run / "diffusion", depends, stop_after=stop_after, schedule=task.schedule)


def diffusion_task(recipe: Recipe, run: Path, scorer: Scorer | None = None) -> DiffusionTask:
    """Put the diffusion stage together, with the text model that the stage before it left, or with its base."""
    config, folder = recipe.diffusion, run / "scenes"
    whole = SceneCache(folder, need_latents=True)
    full = int(whole.rows("latents", [0]).shape[-1])
    needed = {latents_name(stage.sample_size, full) for stage in config.stages}
    cache = SceneCache(folder, need_latents=needed) if needed else whole
    return DiffusionTask(recipe, cache, diffusion_parts(recipe, run), scorer)


def diffusion_parts(recipe: Recipe, run: Path) -> Parts:
    """Make what is to be trained, with the cell features that the stage before left."""
    parts = _parts(recipe, run)
    if "cells" in names(recipe) and uses_own(recipe, run, "cells"):
        task = CellsTask(recipe, SceneCache(run / "scenes", need_latents=True), parts)
        freeze(task, recipe.cells, run / "cells")
        task.cells.train().requires_grad_(True)
    return parts


def _start(recipe: Recipe) -> Path:
    return start_folder(recipe.start, f"{VAE}/config.json" if recipe.autoencoder.learned else CODE)


def uses_own(recipe: Recipe, run: Path, stage: str) -> bool:
    """Whether a run's own weights of a stage are used: always without a start; with one, if it trained on them."""
    return not recipe.start or (run / stage / CHECKPOINT).exists()


def _parts(recipe: Recipe, run: Path) -> Parts:
    """Load a recipe's base, or the text model of an earlier stage, and make the rest with random weights."""
    if recipe.diffusion.base:
        folder = base_folder(recipe.diffusion.base)
        return load_parts(recipe, folder, BaseLatents(folder).decode)
    decode = _reader(recipe, run)
    if recipe.start:
        folder = _start(recipe)
        parts = build_parts(recipe, load_text(folder), decode)
        load_start(parts.unet, folder, "unet")
        load_start(parts.adapter, folder, "adapter")
        return parts
    text = text_task(recipe, run)
    freeze(text, recipe.text.optimiser, run / "text")
    return build_parts(recipe, text.text, decode)


def _reader(recipe: Recipe, run: Path) -> Callable[[Tensor], Tensor]:
    """What turns latents into pictures, for previews."""
    if recipe.autoencoder.learned:
        return BaseLatents(fixed_autoencoder(recipe, run), recipe.autoencoder.patch).decode
    code, patch = load_code(run), recipe.autoencoder.patch
    return lambda latents: code.decode(functional.pixel_shuffle(latents, patch))


def load_code(run: Path) -> BlockCode:
    """Return the latents' code of a run.

    Raises:
        SettingsError: there is none yet.
    """
    if not (run / CODE).exists():
        raise SettingsError(f"{run / CODE}: not there; run the stage latents first")
    return BlockCode.load(run / CODE)


def _part(recipe: Recipe, *names: str) -> dict[str, Any]:
    """The sections of a recipe that a stage depends on."""
    values = recipe.to_dict()
    return {name: values[name] for name in names}
