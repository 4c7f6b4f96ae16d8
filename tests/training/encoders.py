"""How far an encoder is from the code that it is to write."""

import torch


def encoder_error(vae, code):
    """Root mean square over noise pictures of blocks that are not alike."""
    levels = len(vae.config.block_out_channels)
    images = torch.rand(2, 3, 2 ** (levels + 1), 3 * 2**levels, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        return (vae.encode(images).latent_dist.mean - code.encode(images)).square().mean().sqrt().item()
