"""A whole pipeline of tiny random components: 64-pixel pictures from 16x16 latents."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from instancediffusion import Box, Instance, Mask, Point, Scene, Scribble
from instancediffusion.pipeline import InstanceDiffusionPipeline
from tests.tiny import tiny_adapter, tiny_unet

TOKENS = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer without merges: one token for each character."""
    characters = [chr(code) for code in range(33, 127)]
    words = [*characters, *(c + "</w>" for c in characters), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=TOKENS,
    )


def tiny_text_encoder(vocabulary: int, seed: int = 2) -> CLIPTextModel:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
        projection_dim=32,
    )
    return CLIPTextModel(config).eval()


def tiny_open_clip(kind, vocabulary: int, width: int = 48, projection: int = 40, layers: int = 2, **tokens):
    """A text encoder of the shape of OpenCLIP's, as in Stable Diffusion 2.x and XL."""
    torch.manual_seed(5)
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=56,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        hidden_act="gelu",
        projection_dim=projection,
        **tokens,
    )
    return kind(config).eval()


def tiny_vae(seed: int = 3, latent_channels: int = 4) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.5,
        shift_factor=0.1,
    ).eval()


def tiny_scheduler() -> PNDMScheduler:
    return PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )


def tiny_pipeline(folder: Path, unet=None, **options) -> InstanceDiffusionPipeline:
    tokenizer = tiny_tokenizer(folder)
    unet = tiny_unet() if unet is None else unet
    adapter = tiny_adapter(unet)
    with torch.no_grad():  # random weights hardly react to places and captions; these have to
        for parameter in adapter.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    pipeline = InstanceDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        unet=unet,
        adapter=adapter,
        scheduler=tiny_scheduler(),
        **options,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def disc(size: int = 64) -> Mask:
    """A filled circle in the lower right."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return Mask.from_array((((x - 0.7 * size) ** 2 + (y - 0.7 * size) ** 2) < (0.2 * size) ** 2).numpy())


def scene_of(count: int, width: int = 64, height: int = 64) -> Scene:
    """A scene with `count` instances of mixed kinds."""
    instances = [
        Instance("a red cat", box=Box(0.0, 0.0, 0.5, 0.5)),
        Instance("a dog", point=Point(0.7, 0.3)),
        Instance("a green tree", scribble=Scribble(((0.6, 0.1), (0.9, 0.4))), z_order=1),
        Instance("a ball", box=Box(0.25, 0.25, 0.75, 1.0), z_order=0),
    ]
    return Scene("some things", tuple(instances[:count]), width, height, negative_prompt="blur")
