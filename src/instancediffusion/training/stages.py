"""The stages of a run, in order, and the files of each.

RUN/scenes/00000/ ...       drawn, or read from a data set, once, then encoded
RUN/autoencoder/            checkpoint, metrics, previews; vae/: what the latents are made with, fixed from then on
RUN/words/                  checkpoint, metrics; tokenizer/, lessons.safetensors; with a teacher only
RUN/text/                   checkpoint, metrics; tokenizer/ or grammar.json
RUN/relative/               checkpoint, metrics; for adapters with box-relative values only
RUN/diffusion/              checkpoint, metrics, previews
RUN/decoder/                checkpoint, metrics, previews of the autoencoder's decoder, which learns on by itself
RUN/distillation/           checkpoint, metrics, previews of a finished model's student of few steps

With a start, autoencoder, text model, UNet and adapter are the start's; UNet and adapter learn on, and the decoder if
the recipe says how. With `start_networks = false` UNet and adapter are new. With a base they are the base's and stay as
they are; only a new adapter learns. With a teacher nothing but its student learns.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from instancediffusion.data import SceneCache, latents_name
from instancediffusion.data.drawn_world import World
from instancediffusion.errors import SettingsError
from instancediffusion.training.autoencoder import AutoencoderTask, normalise_latents
from instancediffusion.training.base_model import base_folder, base_latents, load_parts
from instancediffusion.training.checkpoint import CHECKPOINT, freeze
from instancediffusion.training.config import DatasetConfig, OptimiserConfig, Recipe
from instancediffusion.training.dataset_scenes import SOURCE, read_scenes
from instancediffusion.training.diffusion import DiffusionTask
from instancediffusion.training.distillation import DistillationTask
from instancediffusion.training.drawn_scenes import draw_scenes, open_world
from instancediffusion.training.few_steps import FewSteps
from instancediffusion.training.fit import fit
from instancediffusion.training.language.prepare import load_grammar, load_lessons, prepare_grammar, prepare_lessons
from instancediffusion.training.language.reading_task import ReadingTask
from instancediffusion.training.language.words_task import WordsTask
from instancediffusion.training.latents import Latents, encode_scenes, sample_images
from instancediffusion.training.naming import NamingTask
from instancediffusion.training.networks import Parts, build_parts
from instancediffusion.training.pretrained import load_start, load_text, start_folder
from instancediffusion.training.preview import Scorer
from instancediffusion.training.processes import open_accelerator
from instancediffusion.training.relative_task import RelativeTask
from instancediffusion.training.sharpening import SharpeningTask
from instancediffusion.training.text_model import TextSide
from instancediffusion.training.tokenizer import train_tokenizer

STAGES = ("scenes", "autoencoder", "words", "text", "latents", "relative", "diffusion", "decoder", "export")
DISTILLATION_STAGES = ("scenes", "distillation", "export")
ADAPTER_STAGES = ("scenes", "latents", "relative", "diffusion", "export")
STARTED_STAGES = ("scenes", "latents", "relative", "diffusion", "decoder", "export")
CORPUS = 5_000
"""Scenes whose texts tokenizer and text model are made from; enough to meet every word of the world many times."""
MEASURED = 256
"""Pictures that the scale of an autoencoder's latents is measured on."""
VAE = "vae"
"""Where the fixed autoencoder stands in the folder of its stage."""


def names(recipe: Recipe) -> tuple[str, ...]:
    """The stages of a recipe, in order."""
    if recipe.distillation.teacher:
        return DISTILLATION_STAGES
    stages = STARTED_STAGES if recipe.start else ADAPTER_STAGES if recipe.diffusion.base else STAGES
    left_out = set() if recipe.text.teacher else {"words"}
    if not recipe.diffusion.cache_latents:
        left_out.add("latents")
    if not recipe.adapter.get("relative_values") or (recipe.start and recipe.start_networks):
        left_out.add("relative")
    if recipe.start and recipe.autoencoder.decoder == OptimiserConfig():  # nothing says how it should learn on
        left_out.add("decoder")
    return tuple(name for name in stages if name not in left_out)


def scenes(recipe: Recipe, run: Path, world: World | None = None) -> None:
    """Read the recipe's data set, or draw its scenes, from another world than the built-in one if it is given."""
    if recipe.dataset.path:
        read_scenes(recipe.dataset, run / "scenes")
    elif (run / "scenes" / SOURCE).exists():
        raise SettingsError(f"{run / 'scenes'}: holds scenes of a data set; name it, or use another run folder")
    else:
        draw_scenes(recipe.world, run / "scenes", world or open_world(recipe.world))


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


def fixed_autoencoder(recipe: Recipe, run: Path) -> AutoencoderKL:
    """Fix the autoencoder of a run (once): its EMA weights, its latents scaled; or the start's.

    Returns:
        What is fixed; a decoder that learned on since is not in it.
    """
    folder, start = run / "autoencoder", start_folder(recipe.start) if recipe.start else None
    if not (folder / VAE).exists():
        if start:
            model = AutoencoderKL.from_pretrained(start / VAE).float()
        else:
            task = autoencoder_task(recipe, run)
            freeze(task, recipe.autoencoder.optimiser, folder)
            normalise_latents(model := task.model, sample_images(task.cache, MEASURED))
        model.save_pretrained(folder / f".{VAE}")
        (folder / f".{VAE}").rename(folder / VAE)  # a folder that can be seen is whole
    fixed: AutoencoderKL = AutoencoderKL.from_pretrained(folder / VAE)
    return fixed


def latents(recipe: Recipe, run: Path) -> None:
    """Encode every shard that is not encoded yet, at the sizes of the recipe's stages."""
    cache, code = SceneCache(run / "scenes"), latents_of(recipe, run)
    sizes = [stage.sample_size for stage in recipe.diffusion.stages]
    _check_sizes(recipe, cache, code)
    encode_scenes(code, run / "scenes", cache.image_px // code.side, sizes)


def _check_sizes(recipe: Recipe, cache: SceneCache, code: Latents) -> None:
    for width, height in cache.sizes:
        if width % code.side or height % code.side:
            name = f"dataset.sizes = {width} x {height}" if recipe.dataset.path else f"world.options.size = {width}"
            raise SettingsError(f"{name}: expected a multiple of {code.side}, the pixels along one latent")


def latents_of(recipe: Recipe, run: Path) -> Latents:
    """What is denoised: the latents of the base, of the start, or of the run's own autoencoder, which is now fixed."""
    if recipe.diffusion.base:
        return base_latents(base_folder(recipe.diffusion.base))
    return Latents(fixed_autoencoder(recipe, run), recipe.autoencoder.patch)


def decoder(recipe: Recipe, run: Path, *, stop_after: int | None = None) -> None:
    """Sharpen the decoder; no other stage needs it, and no latent changes by it."""
    config, depends = recipe.autoencoder.decoder, _part(recipe, "start", "world", "autoencoder")
    fit(decoder_task(recipe, run), config, run / "decoder", depends, stop_after=stop_after)


def decoder_task(recipe: Recipe, run: Path) -> SharpeningTask:
    """Put the decoder's stage together."""
    return SharpeningTask(recipe.autoencoder, SceneCache(run / "scenes"), fixed_autoencoder(recipe, run))


def words(recipe: Recipe, run: Path, *, stop_after: int | None = None, world: World | None = None) -> None:
    """Distil the text model from the recipe's teacher."""
    with open_accelerator().main_process_first():
        prepare_lessons(recipe.text, lambda: world or open_world(recipe.world), run / "words")
    depends = _part(recipe, "text")
    fit(words_task(recipe, run), recipe.text.words, run / "words", depends, stop_after=stop_after)


def words_task(recipe: Recipe, run: Path) -> WordsTask:
    """Put the stage together, from what `words` has prepared."""
    return WordsTask(recipe.text, *load_lessons(run / "words"))


def text(recipe: Recipe, run: Path, *, stop_after: int | None = None, world: World | None = None) -> None:
    """Train the text model by itself: with a teacher on from the stage "words", else from random weights."""
    if recipe.text.teacher:
        with open_accelerator().main_process_first():
            prepare_grammar(recipe.text, lambda: world or open_world(recipe.world), run / "text")
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


def finished_text(recipe: Recipe, run: Path) -> TextSide:
    """The text model that the stage before left."""
    task = text_task(recipe, run)
    freeze(task, recipe.text.optimiser, run / "text")
    return task.text


def relative(recipe: Recipe, run: Path, *, stop_after: int | None = None) -> None:
    """Train the adapter's box-relative features by themselves, on encoded scenes."""
    depends = _part(recipe, "world", "dataset", "adapter", "locations", *(() if recipe.diffusion.base else ("text",)))
    fit(relative_task(recipe, run), recipe.relative, run / "relative", depends, stop_after=stop_after)


def relative_task(recipe: Recipe, run: Path) -> RelativeTask:
    """Put the relative stage together."""
    return RelativeTask(recipe, _cache(recipe, run), _parts(recipe, run))


def diffusion(recipe: Recipe, run: Path, *, stop_after: int | None = None, scorer: Scorer | None = None) -> None:
    """Train UNet and adapter, and the text model if it is to learn on, or an adapter for a base, on encoded scenes."""
    task = diffusion_task(recipe, run, scorer)
    sections = (
        *("start", "start_networks", "world", "dataset", "adapter", "locations", "diffusion"),
        *(() if recipe.diffusion.base else ("text", "unet")),
    )
    depends, config = _part(recipe, *sections), recipe.diffusion.optimiser
    fit(task, config, run / "diffusion", depends, stop_after=stop_after, schedule=task.schedule)


def diffusion_task(recipe: Recipe, run: Path, scorer: Scorer | None = None) -> DiffusionTask:
    """Put the diffusion stage together, with what the stages before it left, or with its base."""
    cache, stages = _cache(recipe, run), recipe.diffusion.stages
    if stages and recipe.diffusion.cache_latents:
        full = int(cache.rows("latents", [0]).shape[-1])
        cache = SceneCache(run / "scenes", need_latents={latents_name(stage.sample_size, full) for stage in stages})
    return DiffusionTask(recipe, cache, diffusion_parts(recipe, run), scorer)


def _cache(recipe: Recipe, run: Path) -> SceneCache:
    """The scenes, with latents if these are kept."""
    cache = SceneCache(run / "scenes", need_latents=recipe.diffusion.cache_latents)
    if not recipe.diffusion.cache_latents:
        _check_sizes(recipe, cache, latents_of(recipe, run))
    return cache


def diffusion_parts(recipe: Recipe, run: Path) -> Parts:
    """Make what is to be trained, with the box-relative features that the stage before left."""
    parts = _parts(recipe, run)
    if "relative" in names(recipe):
        task = RelativeTask(recipe, _cache(recipe, run), parts)
        freeze(task, recipe.relative, run / "relative")
        task.features.train().requires_grad_(True)
    return parts


def _parts(recipe: Recipe, run: Path) -> Parts:
    """Load a recipe's base or start, or the text model of an earlier stage, and make the rest with random weights."""
    code = latents_of(recipe, run)
    if recipe.diffusion.base:
        return load_parts(recipe, base_folder(recipe.diffusion.base), code)
    if recipe.start:
        folder = start_folder(recipe.start)
        parts = build_parts(recipe, load_text(folder), code)
        if recipe.start_networks:
            load_start(parts.unet, folder, "unet")
            load_start(parts.adapter, folder, "adapter")
        return parts
    return build_parts(recipe, finished_text(recipe, run), code)


def distillation(recipe: Recipe, run: Path, *, stop_after: int | None = None) -> None:
    """Distil the recipe's teacher to few steps, on the layouts of the scenes."""
    depends, config = _part(recipe, "world", "dataset", "locations", "distillation"), recipe.distillation.optimiser
    task = distillation_task(recipe, run)
    fit(task, config, run / "distillation", depends, stop_after=stop_after, schedule=task.schedule)


def distillation_task(recipe: Recipe, run: Path) -> DistillationTask:
    """Put the distillation stage together.

    Raises:
        SettingsError: the teacher is no whole model, or of a family that is not known here.
    """
    cache = SceneCache(run / "scenes")
    few = FewSteps(recipe.distillation, start_folder(recipe.distillation.teacher, "distillation.teacher"))
    _check_sizes(recipe, cache, few.student.latents)
    return DistillationTask(recipe, cache, few)


def _part(recipe: Recipe, *names: str) -> dict[str, Any]:
    """The sections of a recipe that a stage depends on."""
    values = recipe.to_dict()
    if not recipe.dataset.path:  # the rest of the section is not read
        values["dataset"] = asdict(DatasetConfig())
    return {name: values[name] for name in names}
