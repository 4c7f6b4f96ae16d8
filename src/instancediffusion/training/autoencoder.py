"""Stage "autoencoder": a stock `AutoencoderKL`, encoder and decoder learned together.

The loss is an L1 distance of values, of their differences at several scales (the pictures have clean edges) and of
colours, and three terms on the latents. A small KL divergence; a variance of 1 over all, which keeps the noise that the
decoder learns to tolerate from being outgrown; and the squared correlations of channels, without which half of them
became redundant. (Variance and correlations are those of one process's part of a batch.) The decoder also decodes
latents of half the resolution to the picture of half the resolution: large forms then survive in what is coarse in the
latents, which a diffusion model settles first (Skorokhodov et al. 2025, "Improving the diffusability of autoencoders").

Sharpness is taught afterwards, with an adversary, to the decoder alone (`sharpening`): the latents stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.data import SceneCache
from instancediffusion.errors import SettingsError
from instancediffusion.training.config import AutoencoderConfig
from instancediffusion.training.supply import SceneTask

REFERENCE = 2.0
"""The constants that two channels of each normalised group start at, beside signals of about 1."""
SCALES = (1, 2, 4)
"""Of the differences in the loss."""


def build_autoencoder(config: AutoencoderConfig, image_px: int) -> AutoencoderKL:
    """Make a stock autoencoder without attention; latents are 1/2^(levels - 1) of the picture's sides."""
    levels = len(config.block_out_channels)
    model: AutoencoderKL = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        mid_block_add_attention=False,
        sample_size=image_px,
        scaling_factor=1.0,
        # The stock pipelines turn to float32 for a VAE that says it needs it; this one does not.
        force_upcast=False,
    )
    start_as_chain(model)
    return model


@torch.no_grad()
def start_as_chain(model: AutoencoderKL) -> None:
    """Change the initial weights so that a narrow network learns sooner; the architecture stays stock.

    Residual branches start at zero and other convolutions keep the size of their input: the network begins as a chain
    of plain convolutions. Two channels of each normalised group start at a positive and a negative constant: a group
    norm removes the mean and the scale of a picture's map, and with them its overall colour, unless most of what it
    divides by does not depend on the picture.
    """
    groups = model.config.norm_num_groups
    for part in (model.encoder, model.decoder):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
                _bias(module).zero_()
        for module in part.modules():
            if isinstance(module, ResnetBlock2D):
                nn.init.zeros_(module.conv2.weight)
                _refer(module.conv1, groups)
                if module.conv_shortcut is not None:
                    _refer(module.conv_shortcut, groups)
        _refer(part.conv_in, groups)
    for block in model.encoder.down_blocks:
        if block.downsamplers:
            _refer(block.downsamplers[0].conv, groups)
    latents = model.config.latent_channels
    model.encoder.conv_out.weight[latents:] *= 0.1
    model.encoder.conv_out.bias[latents:] = -6.0  # a narrow posterior
    for conv in (model.quant_conv, model.post_quant_conv):
        nn.init.dirac_(conv.weight)
        _bias(conv).zero_()


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # all of a stock autoencoder's have one
    return conv.bias


def _refer(conv: nn.Conv2d, groups: int) -> None:
    grouped = _bias(conv).view(groups, -1)
    if grouped.shape[1] > 2:
        grouped[:, 0], grouped[:, 1] = REFERENCE, -REFERENCE


def pixels(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in -1..1, channels last in memory."""
    return (images.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def picture_distance(config: AutoencoderConfig, a: Tensor, b: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum of the distances of values, differences and colours, and each of them by name."""
    values, edges, chroma = (a - b).abs().mean(), difference_distance(a, b), chroma_distance(a, b)
    total = values + config.gradient_weight * edges + config.chroma_weight * chroma
    psnr = -10 * torch.log10((a.detach() - b).square().mean() / 4)
    return total, {"l1": values.item(), "edges": edges.item(), "chroma": chroma.item(), "psnr": psnr.item()}


def difference_distance(a: Tensor, b: Tensor, scales: Sequence[int] = SCALES) -> Tensor:
    """Mean L1 distance of the horizontal and vertical differences of (B, C, H, W) pictures, over several scales.

    At scale s a pixel is the mean of s x s pixels. Scales that leave less than two pixels along a side are left out.
    """
    distances = []
    for scale in scales:
        if min(a.shape[2:]) >= 2 * scale:
            d = functional.avg_pool2d(a - b, scale)
            distances.append(d.diff(dim=2).abs().mean() + d.diff(dim=3).abs().mean())
    return torch.stack(distances).mean()


def chroma_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean L1 distance of (B, 3, H, W) pictures in R - G and yellow - blue, of 2 x 2 and of 8 x 8 pixels.

    The two are added: of each, an error of the whole picture counts fully, one of a single pixel little.
    """
    red, green, blue = (a - b).unbind(1)
    opponent = torch.stack([red - green, (red + green) / 2 - blue], 1)
    sides = (min(scale, *opponent.shape[2:]) for scale in (2, 8))
    return torch.stack([functional.avg_pool2d(opponent, side).abs().mean() for side in sides]).sum()


def channel_correlation(latents: Tensor) -> Tensor:
    """Correlations (C, C) of the channels of (B, C, h, w) latents; 1 on the diagonal."""
    rows = latents.transpose(0, 1).flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    covariance = rows @ rows.T / rows.shape[1]
    spread = covariance.diagonal().clamp(min=1e-8).sqrt()
    return covariance / spread[:, None] / spread


@dataclass(frozen=True)
class Crops:
    """Square crops of the pictures, of several sizes, so that the norms' statistics fit large and small pictures alike.

    Each size takes about the same fraction of a run's time: the probability of a size falls with its area.

    Attributes:
        cache: the pictures.
        sides: in pixels; an empty tuple takes whole pictures.
        multiple: what sides have to be a multiple of.
        recolour: probability that the three colour channels of a crop are permuted.

    Raises:
        SettingsError: a side is no multiple, or larger than the pictures.
    """

    cache: SceneCache
    sides: tuple[int, ...]
    multiple: int
    recolour: float = 0.0

    def __post_init__(self) -> None:
        """Check the sides."""
        for side in self.sides or (self.cache.image_px,):
            if side % self.multiple or not 0 < side <= self.cache.image_px:
                raise SettingsError(
                    f"autoencoder.crops: {side}: expected multiples of {self.multiple}, at most {self.cache.image_px}"
                )

    def cut(self, rows: Sequence[int], generator: torch.Generator, share: slice) -> Tensor:
        """Crop one square out of each picture of a part, mirrored half of the time: (B, 3, side, side) in -1..1."""
        sides = self.sides or (self.cache.image_px,)
        weights = torch.tensor([side**-2.0 for side in sides])
        side = sides[int(torch.multinomial(weights, 1, generator=generator))]
        u = torch.rand((len(rows), 4), generator=generator).tolist()
        orders = [torch.randperm(3, generator=generator) for _ in rows]
        room = self.cache.image_px - side + 1
        cuts = []
        for row, (y, x, turn, paint), order in list(zip(rows, u, orders, strict=True))[share]:
            top, left = int(y * room), int(x * room)
            cut = torch.from_numpy(self.cache.image(row)[top : top + side, left : left + side].copy())
            cut = cut.flip(1) if turn < 0.5 else cut
            cuts.append(cut[..., order] if paint < self.recolour else cut)
        return pixels(torch.stack(cuts))


class AutoencoderTask(SceneTask):
    """The stage's `Task`.

    Args:
        config: model, loss and run.
        cache: scenes to take pictures from.

    Raises:
        SettingsError: crops that the autoencoder cannot halve often enough, or larger than the pictures.
    """

    def __init__(self, config: AutoencoderConfig, cache: SceneCache) -> None:
        super().__init__(cache, config.optimiser.seed)
        self.config = config
        torch.manual_seed(config.optimiser.seed)
        self.model = build_autoencoder(config, cache.image_px).to(memory_format=torch.channels_last)
        # Latents of half the resolution need an even grid.
        self.crops = Crops(cache, config.crops, 2 ** len(config.block_out_channels), config.recolour)
        self.modules: Mapping[str, nn.Module] = {"autoencoder": self.model}

    def _placed(self) -> Iterable[nn.Module]:
        """What is moved to the device."""
        return (self.model,)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Reconstruction error from noisy latents, and the terms on the latents."""
        config, size = self.config, self.config.optimiser.batch_size
        rows, generator = self.draw(step, size)
        share, device = self.where.share(size), self.where.device
        x = self.crops.cut(rows, generator, share)
        grid = (
            size,
            config.latent_channels,
            *(side // 2 ** (len(config.block_out_channels) - 1) for side in x.shape[2:]),
        )
        drawn, level = torch.randn(grid, generator=generator), torch.rand((size, 1, 1, 1), generator=generator)
        drawn, level, x = drawn[share].to(device), level[share].to(device), x.to(device)
        with self.where.autocast(config.optimiser.precision):
            posterior = self.model.encode(x).latent_dist
            mean, variance = posterior.mean.float(), posterior.var.float()
            # Noise of some latents is up to twice the usual: what is decoded later is not always equally good.
            z = mean + (variance + (2 * config.latent_noise * level) ** 2).sqrt() * drawn
            y = self._decode(z)
            coarse = self._decode(functional.avg_pool2d(z, 2)) if config.coarse_weight else None
        distance, numbers = picture_distance(config, y, x)
        loss = distance + self._regular(mean, variance)
        if coarse is not None:
            loss = loss + config.coarse_weight * picture_distance(config, coarse, functional.avg_pool2d(x, 2))[0]
        numbers["power"] = mean.detach().square().mean().item()
        numbers["correlation"] = _off_diagonal(channel_correlation(mean.detach())).abs().max().item()
        return loss, numbers

    def _decode(self, z: Tensor) -> Tensor:
        return self.model.decode(z.contiguous(memory_format=torch.channels_last)).sample.float()

    def _regular(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Regularisation of the latents: near the prior, of variance 1 over all, channels uncorrelated."""
        kl = 0.5 * (mean.square() + variance - 1 - variance.log()).mean()
        power = (mean.square().mean() - 1).square()
        correlation = _off_diagonal(channel_correlation(mean)).square().mean()
        config = self.config
        return config.kl_weight * kl + config.power_weight * power + config.correlation_weight * correlation

    def preview(self, step: int, path: Path) -> None:  # noqa: ARG002
        """Pictures above; below, their reconstructions."""
        x = pictures(self.cache, range(min(8, len(self.cache)))).to(self.where.device)
        save_sheet(path, x, self.model.decode(self.model.encode(x).latent_dist.mode()).sample)


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix[~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)]


def pictures(cache: SceneCache, rows: Sequence[int]) -> Tensor:
    """Pictures of a cache, (B, 3, H, W) in -1..1."""
    return pixels(torch.stack([torch.from_numpy(cache.image(row).copy()) for row in rows]))


def save_sheet(path: Path, *rows: Tensor) -> None:
    """Write pictures as a grid: rows (B, 3, H, W), one under another."""
    grid = torch.cat([torch.cat(list(row.detach().float().cpu().clamp(-1, 1)), 2) for row in rows], 1)
    Image.fromarray(((grid.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()).save(path)


@torch.no_grad()
def normalise_latents(model: AutoencoderKL, images: Tensor, batch: int = 16) -> None:
    """Fix the axes and the scale of the latents.

    Channels become uncorrelated, of mean 0, the widest first, and all together of variance 1 once they are scaled.
    Shift and rotation move into the 1x1 convolutions beside the latents, which changes no picture (stock pipelines for
    Stable Diffusion 1 know no shift); the scale becomes `scaling_factor`. The posterior's variances stay where they
    were: they are narrow, and here only its mode is used.

    Args:
        model: changed in place.
        images: (B, 3, H, W) in -1..1, many.
        batch: encoded together.
    """
    modes = [model.encode(part).latent_dist.mode() for part in images.split(batch)]
    rows = torch.cat(modes).transpose(0, 1).flatten(1).double()
    centre, count = rows.mean(1), len(rows)
    _, axes = torch.linalg.eigh(torch.cov(rows))
    turn = axes.T.flip(0)
    turn = turn * turn.gather(1, turn.abs().argmax(1, keepdim=True)).sign()
    write, read = model.quant_conv, model.post_quant_conv
    kernel = read.weight[:, :, 0, 0].double()
    read.bias += (kernel @ centre).float()
    read.weight.copy_((kernel @ turn.T)[:, :, None, None])
    write.weight[:count, :, 0, 0] = (turn @ write.weight[:count, :, 0, 0].double()).float()
    write.bias[:count] = (turn @ (write.bias[:count].double() - centre)).float()
    scale = (rows - centre[:, None]).square().mean().sqrt()
    model.register_to_config(scaling_factor=float(1 / scale))
