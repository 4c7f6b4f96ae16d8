"""Small random models for tests of mechanics; what is learned is tested on the model in the package."""

import torch
from diffusers import UNet2DConditionModel

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.conditioning import LocationTensors

SEGMENTATION = {"channels": 4, "size": 64, "tokens": 4, "widths": (4, 4, 8, 8), "depths": (1, 1, 1, 1)}


def tiny_unet(seed: int = 0, **config) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        **{
            "sample_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 32,
            "attention_head_dim": 4,
            "norm_num_groups": 16,
            **config,
        }
    ).eval()


def tiny_xl_unet(seed: int = 0) -> UNet2DConditionModel:
    """With the parts of Stable Diffusion XL's: two text encoders 32 and 48 wide, a pooled one of 40."""
    return tiny_unet(
        seed,
        use_linear_projection=True,
        cross_attention_dim=32 + 48,
        attention_head_dim=[2, 4],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2],
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=40 + 6 * 8,
    )


def tiny_adapter(unet: UNet2DConditionModel, seed: int = 1, **config) -> InstanceAdapter:
    """An adapter whose every parameter is random: gates open, nothing at its neutral value."""
    torch.manual_seed(seed)
    adapter = InstanceAdapter.for_unet(
        unet, **{"token_dim": 24, "caption_dim": 32, "hidden_dim": 40, "segmentation": SEGMENTATION, **config}
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.dim() < 2 or not parameter.any():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return adapter


def random_locations(batch: int, slots: int, seed: int = 0, masks: bool = True) -> LocationTensors:
    """Random places of all four kinds, present at random, with at least a box each."""
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    corner, size = rand(batch, slots, 2) * 0.5, rand(batch, slots, 2) * 0.4 + 0.1
    used = torch.ones(batch, slots, dtype=torch.bool)
    present = {kind: rand(batch, slots) < 0.6 for kind in ("point", "scribble", "mask")}
    present["box"] = used.clone()
    if not masks:
        present["mask"] = torch.zeros_like(used)
    return LocationTensors(
        boxes=torch.cat([corner, corner + size], dim=-1),
        points=corner + size / 2,
        scribbles=rand(batch, slots, 20, 2),
        mask_points=rand(batch, slots, 256, 2),
        used=used,
        present=present,
        z_order=torch.arange(slots).float().expand(batch, slots),
        z_known=rand(batch, slots) < 0.7,
        segmentations=(rand(batch, slots, 64, 64) < 0.3).to(torch.uint8) if masks else None,
        segmentation_channel=torch.arange(slots).expand(batch, slots),
    )
