"""The autoencoder: a stock `AutoencoderKL` whose encoder writes a fixed code, and whose decoder learns to read it.

The code (`BlockCode`) is known before training, so the encoder is written down (`write_encoder`), and the decoder does
not need the diffusion model and may learn while it does. No adversary and no perceptual network: the world's pictures
are flat-coloured with clean edges, for which an L1 distance of values and of their differences is a fair measure, and
nothing has to be downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from instancediffusion.data import SceneCache
from instancediffusion.errors import SettingsError
from instancediffusion.training.autoencoder import pixels
from instancediffusion.training.blocks import BlockCode
from instancediffusion.training.config import AutoencoderConfig
from instancediffusion.training.supply import SceneTask
from instancediffusion.training.task import Place

REFERENCE = 2.0


def build_measured(config: AutoencoderConfig, image_px: int) -> AutoencoderKL:
    """Make a stock autoencoder with random weights; latents are 1/2^(levels - 1) of the picture's sides.

    Its encoder is of no use before `write_encoder`.
    """
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
        # The code has variance 1 over all already.
        scaling_factor=1.0,
        # The stock pipelines turn to float32 for a VAE that says it needs it; this one does not.
        force_upcast=False,
    )
    ease_start(model)
    return model


@torch.no_grad()
def ease_start(model: AutoencoderKL, value: float = REFERENCE) -> None:
    """Change the initial weights of the decoder so that a narrow network learns sooner; the architecture stays stock.

    Residual branches start at zero: the network begins as a chain of plain convolutions. And two channels of each
    group that is normalised start at +value and -value: a group norm removes the mean and the scale of a picture's map,
    and with them its overall colour, unless most of what it divides by does not depend on the picture.
    """
    for module in model.decoder.modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight.zero_()
            module.conv2.bias.zero_()
            _reference(module.conv1.bias, module.norm2.num_groups, value)
            if module.conv_shortcut is not None:
                _reference(module.conv_shortcut.bias, module.norm1.num_groups, value)
    _reference(model.decoder.conv_in.bias, model.decoder.conv_norm_out.num_groups, value)


def _reference(bias: Tensor, groups: int, value: float) -> None:
    grouped = bias.view(groups, -1)
    if grouped.shape[1] > 2:
        grouped[:, 0], grouped[:, 1] = value, -value


def edge_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean L1 distance of horizontal and vertical differences, at full and at half resolution."""
    total = a.new_zeros(())
    for scale in (1, 2):
        x, y = (a, b) if scale == 1 else (functional.avg_pool2d(a, 2), functional.avg_pool2d(b, 2))
        d = x - y
        total = total + d.diff(dim=2).abs().mean() + d.diff(dim=3).abs().mean()
    return total / 2


class DecoderTask(SceneTask):
    """The decoder's `Task`.

    Args:
        config: model, loss and run.
        cache: scenes to take pictures from.
        code: the latents to read.

    Raises:
        SettingsError: crops that are no whole blocks, or larger than the pictures.
    """

    def __init__(self, config: AutoencoderConfig, cache: SceneCache, code: BlockCode) -> None:
        super().__init__(cache, config.decoder.seed)
        self.config, self.code = config, code
        if config.crop_px % code.side or not 0 <= config.crop_px <= cache.image_px:
            raise SettingsError(
                f"crop_px = {config.crop_px}: expected a multiple of {code.side}, at most {cache.image_px}"
            )
        torch.manual_seed(config.decoder.seed)
        self.model = build_measured(config, cache.image_px)
        self.model.to(memory_format=torch.channels_last)
        self.modules: Mapping[str, nn.Module] = {
            "decoder": self.model.decoder,
            "post_quant_conv": self.model.post_quant_conv,
        }

    def place(self, place: Place) -> None:
        """Compute there, and that share of every batch."""
        self.where = place
        self.model.to(place.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Distance of what is read to the picture."""
        size = self.config.decoder.batch_size
        rows, generator = self.draw(step, size)
        share, device = self.where.share(size), self.where.device
        x = self._pictures(rows[share])
        if self.config.crop_px:
            x = self._crops(x, torch.rand((size, 2), generator=generator)[share])
        z = self.code.encode(x)
        # What is read later comes from a diffusion model, which makes small errors.
        noise = torch.randn((size, *z.shape[1:]), generator=generator)[share]
        return self._reading((z + self.config.latent_noise * noise).to(device), x.to(device))

    def _pictures(self, rows: Sequence[int]) -> Tensor:
        return pixels(torch.stack([torch.from_numpy(self.cache.image(row).copy()) for row in rows]))

    def _crops(self, x: Tensor, places: Tensor) -> Tensor:
        """Cut a square of whole blocks out of each picture; places (B, 2) in 0..1 say which."""
        blocks, side = self.config.crop_px // self.code.side, self.code.side
        room = torch.tensor(x.shape[2:]) // side - blocks + 1
        corners = ((places * room).long().clamp(max=room - 1) * side).tolist()
        cut = [p[:, r : r + blocks * side, c : c + blocks * side] for p, (r, c) in zip(x, corners, strict=True)]
        return torch.stack(cut).contiguous(memory_format=torch.channels_last)

    def _reading(self, z: Tensor, x: Tensor) -> tuple[Tensor, dict[str, float]]:
        with self.where.autocast(self.config.decoder.precision):
            y = self.model.decode(z.contiguous(memory_format=torch.channels_last)).sample
        y = y.float()
        distance, edges = (y - x).abs().mean(), edge_distance(y, x)
        psnr = -10 * torch.log10((y.detach() - x).square().mean() / 4)
        loss = distance + self.config.gradient_weight * edges
        return loss, {"l1": distance.item(), "edges": edges.item(), "psnr": psnr.item()}

    def preview(self, step: int, path: Path) -> None:  # noqa: ARG002
        """Pictures above; below, what the decoder reads of their codes."""
        x = self._pictures(range(min(8, len(self.cache))))
        y = self.model.decode(self.code.encode(x).to(self.where.device)).sample.cpu()
        sheet = torch.cat([torch.cat(list(x), 2), torch.cat(list(y.clamp(-1, 1)), 2)], 1)
        Image.fromarray(((sheet.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()).save(path)
