"""A learned encoder lost the colours: a green sofa came back grey. The code is linear, so it is written down."""

from dataclasses import replace

import pytest
import torch

from instancediffusion.errors import SettingsError
from instancediffusion.training.blocks import BlockCode
from instancediffusion.training.config import AutoencoderConfig
from instancediffusion.training.decoder import build_measured
from instancediffusion.training.encoder import LOG_VARIANCE, write_encoder

from .encoders import encoder_error


def code_of(channels: int, side: int) -> BlockCode:
    generator = torch.Generator().manual_seed(channels)
    images = torch.rand(40, 3, 4 * side, 4 * side, generator=generator) * 2 - 1
    return BlockCode.measure(images, channels, side, 0.5)


@pytest.mark.parametrize(
    ("widths", "channels", "groups", "layers"),
    [
        ((16, 32, 64, 160), 8, 2, 1),  # as `mini`
        ((12, 12, 24), 4, 2, 2),
        ((12, 24, 24), 6, 2, 1),  # no layer between the last two levels in which to make the pairs
        ((16, 32), 3, 4, 1),
        ((16, 16, 32), 4, 8, 1),  # groups so small that each holds one latent
        ((12, 12, 21), 4, 3, 1),  # groups of an odd number of channels
        ((8,), 3, 1, 1),  # one level: a block is a pixel
    ],
)
def test_the_encoder_is_the_code(widths, channels, groups, layers):
    config = AutoencoderConfig(widths, layers, channels, norm_num_groups=groups)
    code, vae = code_of(channels, 2 ** (len(widths) - 1)), build_measured(config, 32)
    reader = {name: value.clone() for name, value in vae.decoder.state_dict().items()}
    write_encoder(vae, code)
    assert all(torch.equal(value, reader[name]) for name, value in vae.decoder.state_dict().items())
    assert encoder_error(vae, code) < 1e-3
    with torch.no_grad():
        log_variance = vae.encode(torch.zeros(1, 3, 32, 32)).latent_dist.logvar
    torch.testing.assert_close(log_variance, torch.full_like(log_variance, LOG_VARIANCE))
    vae.half().float()  # as it is stored
    assert encoder_error(vae, code) < 0.01


def test_a_picture_all_of_one_colour_keeps_it():
    """A norm removes a map's mean and scale, and with them the overall colour, unless something else sets them."""
    code, vae = code_of(8, 8), build_measured(AutoencoderConfig(), 32)
    write_encoder(vae, code)
    for colour in ((-1.0, 1.0, -1.0), (0.9, 0.2, 0.1)):
        image = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 32, 32).contiguous()
        with torch.no_grad():
            torch.testing.assert_close(vae.encode(image).latent_dist.mean, code.encode(image), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("widths", [(8, 16, 24), (12, 12, 8), (12, 3, 24), (2, 12, 24)])
def test_too_few_channels_are_refused(widths):
    config = replace(AutoencoderConfig(), block_out_channels=widths, latent_channels=4, norm_num_groups=1)
    with pytest.raises(SettingsError, match=r"block_out_channels = .* channels cannot hold the \d+ numbers"):
        write_encoder(build_measured(config, 16), code_of(4, 4))
