"""Stage "decoder": the autoencoder's decoder learns on, its latents held fixed, against a patch discriminator.

A distance alone leaves fine lines soft: where the latents do not say, the best guess is the middle. Hinge losses (Lim
and Ye 2017, "Geometric GAN") on the scores that a small convolutional network gives to patches (Isola et al. 2017,
"Image-to-image translation with conditional adversarial networks") ask for a plausible guess instead. The distance of
its inner maps for picture and reconstruction, feature matching (Wang et al. 2018, "High-resolution image synthesis and
semantic manipulation with conditional GANs"), stands in for a perceptual network: nothing has to be downloaded.

The encoder is not among the modules that learn, and latents that were encoded before keep their meaning; so this stage
may run while the diffusion model learns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from instancediffusion.data import SceneCache
from instancediffusion.training.autoencoder import Crops, picture_distance, pictures, save_sheet
from instancediffusion.training.config import AutoencoderConfig
from instancediffusion.training.supply import SceneTask


class PatchDiscriminator(nn.Module):
    """Scores of overlapping patches: strided 4x4 convolutions, group norms but at the first and the last map.

    Args:
        widths: channels of the inner maps, each half the size of the one before; multiples of 4.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        ends = (3, *widths)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(ends, widths, strict=False))
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) if n else nn.Identity() for n, width in enumerate(widths))
        self.score = nn.Conv2d(widths[-1], 1, 3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) in -1..1 -> scores (B, 1, h, w), higher for pictures, and the inner maps."""
        maps = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = functional.leaky_relu(norm(layer(x)), 0.2)
            maps.append(x)
        return self.score(x), maps


class SharpeningTask(SceneTask):
    """The stage's `Task`: decoder and discriminator learn in the same step, each from its own loss.

    Args:
        config: loss and run.
        cache: scenes to take pictures from.
        model: the learned autoencoder; its decoder is changed, its encoder is not.

    Raises:
        SettingsError: crops that are no whole latents, or larger than the pictures.
    """

    def __init__(self, config: AutoencoderConfig, cache: SceneCache, model: AutoencoderKL) -> None:
        super().__init__(cache, config.decoder.seed)
        self.config = config
        self.model = model.to(memory_format=torch.channels_last).requires_grad_(False)
        torch.manual_seed(config.decoder.seed)
        self.discriminator = PatchDiscriminator(config.discriminator_channels)
        self.crops = Crops(cache, config.crops, 2 ** (len(config.block_out_channels) - 1), config.recolour)
        self.modules: Mapping[str, nn.Module] = {
            "decoder": model.decoder.requires_grad_(True),
            "post_quant_conv": model.post_quant_conv.requires_grad_(True),
            "discriminator": self.discriminator,
        }

    def _placed(self) -> Iterable[nn.Module]:
        """What is moved to the device."""
        return (self.model, self.discriminator)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The decoder's and the discriminator's loss, added: neither's gradient reaches the other's weights."""
        config, size = self.config, self.config.decoder.batch_size
        rows, generator = self.draw(step, size)
        share, device = self.where.share(size), self.where.device
        x = self.crops.cut(rows, generator, share)
        side = x.shape[-1] // self.crops.multiple
        drawn = torch.randn((size, config.latent_channels, side, side), generator=generator)[share].to(device)
        level = torch.rand((size, 1, 1, 1), generator=generator)[share].to(device)
        x = x.to(device)
        with self.where.autocast(config.decoder.precision):
            with torch.no_grad():
                z = self.model.encode(x).latent_dist.mode().float()
            noise = 2 * config.latent_noise / self.model.config.scaling_factor * level
            y = self.model.decode((z + noise * drawn).contiguous(memory_format=torch.channels_last)).sample.float()
            real, real_maps = self.discriminator(x)
            fake, _ = self.discriminator(y.detach())
            fixed = {name: value.detach() for name, value in self.discriminator.named_parameters()}
            wanted, maps = functional_call(self.discriminator, fixed, (y,))
        distance, numbers = picture_distance(config, y, x)
        pairs = zip(maps, real_maps, strict=True)
        matched = torch.stack([(a.float() - b.float().detach()).abs().mean() for a, b in pairs]).mean()
        hinge = functional.relu(1 - real.float()).mean() + functional.relu(1 + fake.float()).mean()
        # A discriminator that has learned nothing yet would only do harm.
        ramp = min(1.0, step / max(config.adversary_warmup, 1))
        adversarial = config.feature_weight * matched - config.adversary_weight * wanted.float().mean()
        return distance + ramp * adversarial + hinge, {**numbers, "features": matched.item(), "hinge": hinge.item()}

    def preview(self, step: int, path: Path) -> None:  # noqa: ARG002
        """Pictures above; below, their reconstructions."""
        x = pictures(self.cache, range(min(8, len(self.cache)))).to(self.where.device)
        save_sheet(path, x, self.model.decode(self.model.encode(x).latent_dist.mode()).sample)
