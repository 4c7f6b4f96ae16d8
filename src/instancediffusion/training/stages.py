"""The stages of a run, in order, and where each keeps its things.

RUN/scenes/00000/ ...       drawn once, then encoded
RUN/latents.safetensors     the code of the latents
RUN/encoder/ RUN/decoder/   checkpoint, metrics, previews of the autoencoder's halves
RUN/text/                   checkpoint, metrics; tokenizer/
RUN/diffusion/              checkpoint, metrics, previews
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from instancediffusion.data import SceneCache
from instancediffusion.errors import SettingsError
from instancediffusion.training.autoencoder import AutoencoderTask, Half
from instancediffusion.training.blocks import BlockCode
from instancediffusion.training.config import Recipe
from instancediffusion.training.diffusion import DiffusionTask
from instancediffusion.training.frozen import freeze
from instancediffusion.training.latents import encode_scenes, sample_images
from instancediffusion.training.loop import fit
from instancediffusion.training.naming import NamingTask
from instancediffusion.training.scenes import draw_scenes, open_world
from instancediffusion.training.tokenizer import train_tokenizer
from instancediffusion.worlds import World

STAGES = ("scenes", "latents", "encoder", "decoder", "text", "diffusion", "export")
CODE = "latents.safetensors"
CORPUS = 5_000
"""Scenes whose texts tokenizer and text model are made from; enough to meet every word of the world many times."""


def scenes(recipe: Recipe, run: Path, world: World | None = None) -> None:
    """Draw the recipe's scenes, from another world than the built-in one if it is given."""
    draw_scenes(recipe.world, run / "scenes", (world or open_world(recipe.world)).sample)


def latents(recipe: Recipe, run: Path) -> None:
    """Fix the latents' code (once), then encode every shard that is not."""
    path, config = run / CODE, recipe.autoencoder
    if not path.exists():
        images = sample_images(SceneCache(run / "scenes"))
        side = 2 ** (len(config.block_out_channels) - 1)
        BlockCode.measure(images, config.latent_channels, side, config.whitening).save(path)
    encode_scenes(load_code(run), run / "scenes")


def autoencoder_half(recipe: Recipe, run: Path, half: Half, *, stop_after: int | None = None) -> None:
    """Train the encoder or the decoder; neither needs the other, nor the diffusion stage either of them."""
    task = autoencoder_task(recipe, run, half)
    fit(task, task.optimiser, run / half, _part(recipe, "world", "autoencoder"), stop_after=stop_after)


def autoencoder_task(recipe: Recipe, run: Path, half: Half) -> AutoencoderTask:
    """Put one half together."""
    config = recipe.autoencoder
    optimiser = config.encoder if half == "encoder" else config.decoder
    return AutoencoderTask(config, optimiser, SceneCache(run / "scenes"), load_code(run), half)


def text(recipe: Recipe, run: Path, *, stop_after: int | None = None) -> None:
    """Train the text model by itself."""
    fit(text_task(recipe, run), recipe.text.optimiser, run / "text", _part(recipe, "text"), stop_after=stop_after)


def text_task(recipe: Recipe, run: Path) -> NamingTask:
    """Put the text stage together; the tokenizer is made the first time."""
    folder = run / "text" / "tokenizer"
    texts = SceneCache(run / "scenes").all_texts(CORPUS)
    if not folder.exists():
        train_tokenizer(texts, vocabulary=recipe.text.vocabulary, length=recipe.text.length).save_pretrained(folder)
    return NamingTask(recipe.text, texts, CLIPTokenizer.from_pretrained(folder))


def diffusion(recipe: Recipe, run: Path, *, stop_after: int | None = None) -> None:
    """Train UNet and adapter, and the text model if it is to learn on, on the encoded scenes."""
    task = diffusion_task(recipe, run)
    parts = ("world", "text", "unet", "adapter", "locations", "diffusion")
    fit(task, recipe.diffusion.optimiser, run / "diffusion", _part(recipe, *parts), stop_after=stop_after)


def diffusion_task(recipe: Recipe, run: Path) -> DiffusionTask:
    """Put the second stage together, with the text model that the stage before it left."""
    cache, code = SceneCache(run / "scenes", need_latents=True), load_code(run)
    text = text_task(recipe, run)
    freeze(text, recipe.text.optimiser, run / "text")
    return DiffusionTask(recipe, cache, text.text, code.decode)


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
