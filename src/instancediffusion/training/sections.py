"""The sections of a recipe that say what is made: pictures, networks, the exported folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from instancediffusion.errors import SettingsError
from instancediffusion.training.run_sections import OptimiserConfig


@dataclass(frozen=True)
class WorldConfig:
    """The pictures to learn from.

    Attributes:
        scenes: how many scenes to draw.
        shard: scenes per folder; the unit that is written at once.
        first_seed: seed of scene 0; scene k has seed `first_seed + k`.
        reversed_scenes: how many of the first scenes are drawn in the reversed depth order, too, so that only
            the overlaps distinguish the two.
        max_instances: slots stored for each scene.
        region_px: side of the stored mask bitmaps; also what the adapter's attention regions are made from.
        options: passed to `World.load`.
    """

    scenes: int = 24_000
    shard: int = 500
    first_seed: int = 0
    reversed_scenes: int = 0
    max_instances: int = 8
    region_px: int = 64
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetConfig:
    """Labelled pictures to learn from in place of the drawn world; see `instancediffusion.datasets`.

    Attributes:
        path: a file or folder of any format that is read; "" = the drawn world.
        format: its name; "" = found out from the content.
        split, images, captions, labels: the part to read, the folder of the pictures, the captions file, the names of
            the classes, where the data set does not say by itself; see `ReadingOptions`.
        sizes: (width, height) in pixels that pictures are made to have; each takes the one whose shape is nearest to
            its own. It is scaled to cover that size, and cut to it evenly on both sides.
        max_instances: slots stored for each picture; of one with more instances, the largest are kept.
        region_px: side of the stored mask bitmaps.
        shard: entries of the data set per folder; the unit that is written at once.
        workers: processes that read pictures beside this one; 0 = this one reads them.
    """

    path: str = ""
    format: str = ""
    split: str = ""
    images: str = ""
    captions: str = ""
    labels: tuple[str, ...] = ()
    sizes: tuple[tuple[int, ...], ...] = ((512, 512),)
    max_instances: int = 8
    region_px: int = 64
    shard: int = 250
    workers: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be used."""
        if not self.sizes or any(len(size) != 2 or min(size) < 16 for size in self.sizes):
            raise SettingsError(f"dataset.sizes = {self.sizes}: expected pairs [width, height] of at least 16 pixels")
        for name, low, high in (("max_instances", 1, 255), ("shard", 1, 100_000), ("workers", 0, 1_000)):
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"dataset.{name} = {getattr(self, name)}: expected {low}..{high}")
        if self.region_px < 8 or self.region_px % 8:
            raise SettingsError(f"dataset.region_px = {self.region_px}: expected a multiple of 8")


@dataclass(frozen=True)
class AutoencoderConfig:
    """A stock `AutoencoderKL` without attention: encoder and decoder learn together, then the decoder by itself.

    Attributes:
        block_out_channels: channels at 1/1, 1/2, ... of the resolution; their number sets how many pixels a latent has.
        layers_per_block: residual blocks per level.
        latent_channels: numbers in a latent.
        norm_num_groups: groups of the group norms. Few: narrow groups lose a picture's overall colour.
        gradient_weight: of the L1 distance of finite differences at several scales, beside that of values: keeps edges.
        latent_noise: standard deviation of what is added to the scaled latents that the decoder learns from, so that
            it tolerates a denoiser's small errors: the mean over pictures, drawn up to twice.
        crops: sides of the squares that are cut out of pictures to learn from; empty = whole pictures.
        chroma_weight: of the L1 distance of colour differences, coarse and fine. Outlines pay sooner than colours, and
            a colour axis that is missing from the latents at first was found late or never.
        kl_weight, power_weight, correlation_weight: of the terms on the latents, see `training.autoencoder`.
        coarse_weight: of decoding latents of half the resolution to pictures of half the resolution.
        recolour: probability that a picture's three colours are permuted: the sprites' frequent ones are not all.
        discriminator_channels: of the patch discriminator's maps.
        feature_weight: of the distance of its inner feature maps.
        adversary_weight: of its score; too much of it draws rims around everything.
        adversary_warmup: steps over which both weights grow from 0.
        optimiser: the run of encoder and decoder together.
        decoder: the run of the decoder.
        patch: neighbouring latents on each axis that the UNet sees as one latent pixel with patch^2 times the channels.
    """

    block_out_channels: tuple[int, ...] = (16, 32, 64, 160)
    layers_per_block: int = 1
    latent_channels: int = 8
    norm_num_groups: int = 2
    gradient_weight: float = 1.0
    latent_noise: float = 0.1
    crops: tuple[int, ...] = ()
    chroma_weight: float = 0.7
    kl_weight: float = 1e-4
    power_weight: float = 0.05
    correlation_weight: float = 0.01
    coarse_weight: float = 0.12
    recolour: float = 0.3
    discriminator_channels: tuple[int, ...] = (32, 64, 128)
    feature_weight: float = 1.0
    adversary_weight: float = 0.012
    adversary_warmup: int = 200
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    decoder: OptimiserConfig = field(default_factory=OptimiserConfig)
    patch: int = 1


@dataclass(frozen=True)
class TextConfig:
    """The tokenizer and the CLIP text model.

    Attributes:
        vocabulary: largest number of entries, 514 of which are the bytes (alone and at a word's end) and the two marks.
        length: tokens of a prompt, marks included.
        width: channels of the context (cross-attention) and of the caption features.
        layers: transformer layers.
        heads: attention heads.
        teacher: the sentence encoder whose sense of words is taken over, see `language.teacher_folder`; "" = none, the
            model then knows only the words of the world.
        wordnet: folder of WordNet's database; "" looks in the usual places.
        nouns: how many of the most frequent nouns are distilled.
        likeness: to the nearest class of the world, -1..1, under which a caption gives a warning, see
            `pipeline.familiar`; with a teacher.
        words: the run of the stage "words"; not read without a teacher.
        optimiser: the run of the stage "text".
    """

    vocabulary: int = 2000
    length: int = 32
    width: int = 256
    layers: int = 3
    heads: int = 4
    teacher: str = ""
    wordnet: str = ""
    nouns: int = 20_000
    likeness: float = 0.45
    words: OptimiserConfig = field(default_factory=OptimiserConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)


@dataclass(frozen=True)
class UNetConfig:
    """The denoiser, a stock `UNet2DConditionModel`.

    Attributes:
        block_out_channels: channels of each level.
        layers_per_block: residual blocks (and transformer blocks) per level.
        head_channels: channels per attention head.
        sample_size: side of the latent grid it is trained on.
        down_block_types: stock names of the encoder's blocks, largest map first; none means attention in all of them.
        up_block_types: stock names of the decoder's blocks, deepest first; none means attention in all of them.
            Attention on the largest map is the most expensive part of a step, and one block of it may be enough.
        transformer_layers: transformer blocks, and with them gated layers, in each attention block of a level; none
            means one.
    """

    block_out_channels: tuple[int, ...] = (128, 256)
    layers_per_block: int = 1
    head_channels: int = 32
    sample_size: int = 16
    down_block_types: tuple[str, ...] = ()
    up_block_types: tuple[str, ...] = ()
    transformer_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the names of the blocks, and that there is one entry for each level."""
        levels = len(self.block_out_channels)
        for side in ("Down", "Up"):
            name = f"{side.lower()}_block_types"
            named, known = getattr(self, name), (f"CrossAttn{side}Block2D", f"{side}Block2D")
            if named and (len(named) != levels or not set(named) <= set(known)):
                raise SettingsError(f"unet.{name}: give one name for each of the {levels} levels, {' or '.join(known)}")
        if self.transformer_layers and (len(self.transformer_layers) != levels or min(self.transformer_layers) < 1):
            raise SettingsError(f"unet.transformer_layers: give a number from 1 for each of the {levels} levels")


@dataclass(frozen=True)
class ExportConfig:
    """What the exported folder says of itself beside its weights.

    Attributes:
        scheduler: class of a stock scheduler.
        scheduler_options: its settings beside those of the noise schedule.
        settings: generation settings that suit the model.
        licence: of the weights.
        pictures: where the training pictures come from, in one line.
    """

    scheduler: str = "DPMSolverMultistepScheduler"
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    licence: str = "Apache-2.0"
    pictures: str = ""
