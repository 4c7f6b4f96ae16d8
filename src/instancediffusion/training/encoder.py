"""The encoder of the autoencoder: the block code, written out in the weights of a stock one.

The code is linear, and a stock encoder whose residual branches are zero is a chain of plain convolutions. Level by
level these gather, of each smaller block, those combinations of its pixels that the code's rows need of it. What is
left in the way is the last group norm and SiLU. Each number passes them twice, with either sign, since
silu(x) - silu(-x) = x; and two large constants in each group decide what the norm divides by. Nothing is learned.
"""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from instancediffusion.errors import SettingsError
from instancediffusion.training.blocks import BlockCode

CONSTANT = 512.0
"""The large constants: latents are about 1, so that what a norm divides by changes by some 1e-5 of it."""

LOG_VARIANCE = -8.0
"""The code is exact; the posterior that stock pipelines may draw from is given a width that does not matter."""


@torch.no_grad()
def write_encoder(model: AutoencoderKL, code: BlockCode) -> None:
    """Make the mean of `model.encode` the code of a picture, to rounding; the decoder stays as it is.

    Args:
        model: a stock autoencoder; a block's side is 2 to the power of its levels but one.
        code: with as many rows as the model has latent channels.

    Raises:
        SettingsError: the model has fewer channels than the code needs.
    """
    encoder, rows = model.encoder, code.basis / code.scale[:, None]
    for module in [*encoder.modules(), model.quant_conv]:
        if isinstance(module, nn.Conv2d):
            for parameter in module.parameters():
                parameter.zero_()
        elif isinstance(module, nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    side, last = code.side, len(encoder.down_blocks) - 1
    pairs, constants = _pairs(model, len(rows))
    if last == 0:  # a block is a pixel
        encoder.conv_in.weight[:, :, 1, 1] = pairs @ rows
        encoder.conv_in.bias.copy_(constants)
    else:
        _check_room(model, 0, 3)
        nn.init.dirac_(encoder.conv_in.weight)
    known = torch.eye(3).reshape(3, 3, 1, 1)
    for level, block in enumerate(encoder.down_blocks):
        if level > 0:
            wanted = rows.reshape(-1, 3, side, side) if level == last else _parts(rows, side, 2**level)
            gather = encoder.down_blocks[level - 1].downsamplers[0].conv
            _check_room(model, level, len(wanted))
            read = _read(wanted, known)
            if level == last and block.resnets[0].conv_shortcut is None:
                read = torch.einsum("pc,ckab->pkab", pairs, read)
                gather.bias.copy_(constants)
            # The stock convolution looks at 3x3 of the finer cells, the last row and column of them a neighbour's.
            gather.weight[: len(read), : read.shape[1], :2, :2] = read
            known = wanted
        for resnet in block.resnets:
            shortcut = resnet.conv_shortcut
            if shortcut is None:  # its input is handed on as it is
                continue
            if level == last:
                shortcut.weight[:, : len(rows), 0, 0] = pairs
                shortcut.bias.copy_(constants)
            else:
                nn.init.dirac_(shortcut.weight)
    norm = encoder.conv_norm_out
    divided = CONSTANT * math.sqrt(2 * norm.num_groups / norm.num_channels)
    count = len(rows)
    encoder.conv_out.weight[:count, :, 1, 1] = divided * pairs.T
    encoder.conv_out.bias[:count] = -(rows @ code.mean)
    encoder.conv_out.bias[count:] = LOG_VARIANCE
    nn.init.dirac_(model.quant_conv.weight)


def _parts(rows: Tensor, side: int, part: int) -> Tensor:
    """What rows (C, 3 side side) need of blocks of a smaller side: orthonormal, (R, 3, part, part)."""
    cut = rows.reshape(-1, 3, side // part, part, side // part, part).permute(0, 2, 4, 1, 3, 5)
    _, strength, axes = torch.linalg.svd(cut.reshape(-1, 3 * part * part).double(), full_matrices=False)
    kept = int((strength > 1e-6 * strength[0]).sum())
    return axes[:kept].float().reshape(kept, 3, part, part)


def _read(wanted: Tensor, known: Tensor) -> Tensor:
    """Weights (R, K, 2, 2) that make `wanted` (R, 3, 2s, 2s) of four blocks of orthonormal `known` (K, 3, s, s)."""
    side = known.shape[-1]
    cut = wanted.reshape(len(wanted), 3, 2, side, 2, side)
    return torch.einsum("rcaybz,kcyz->rkab", cut, known)


def _pairs(model: AutoencoderKL, count: int) -> tuple[Tensor, Tensor]:
    """Where the last norm finds the latents: with both signs (channels, C), and beside two constants (channels,)."""
    norm = model.encoder.conv_norm_out
    size = norm.num_channels // norm.num_groups
    room = size // 2 - 1
    if norm.num_groups * room < count:
        raise _narrow(model, norm.num_channels, 2 * norm.num_groups * (1 + math.ceil(count / norm.num_groups)))
    signs, constants = torch.zeros(norm.num_channels, count), torch.zeros(norm.num_channels)
    for group in range(norm.num_groups):
        constants[group * size], constants[group * size + 1] = CONSTANT, -CONSTANT
        for place, latent in enumerate(range(group * room, min((group + 1) * room, count))):
            at = group * size + 2 + 2 * place
            signs[at, latent], signs[at + 1, latent] = 1, -1
    return signs, constants


def _check_room(model: AutoencoderKL, level: int, needed: int) -> None:
    widths = model.config.block_out_channels
    room = widths[level - 1] if level == len(widths) - 1 else min(widths[max(level - 1, 0) : level + 1])
    if room < needed:
        raise _narrow(model, room, needed)


def _narrow(model: AutoencoderKL, room: int, needed: int) -> SettingsError:
    widths = list(model.config.block_out_channels)
    return SettingsError(
        f"autoencoder.block_out_channels = {widths}: {room} channels cannot hold the {needed} numbers that a code of "
        f"{model.config.latent_channels} needs there; give more, or fewer latent_channels"
    )
