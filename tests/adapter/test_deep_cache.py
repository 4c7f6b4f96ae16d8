"""The outer blocks round deep features are the UNet that the features came from."""

import pytest
import torch

from instancediffusion.adapter.backbones import core_network
from instancediffusion.adapter.deep_cache import DeepCache, OuterBlocks
from tests.tiny import random_locations, tiny_adapter, tiny_unet, tiny_xl_unet

ROWS = 2
SHAPES = {
    "one part a block": lambda: tiny_unet(),
    "three levels of two parts": lambda: tiny_unet(
        layers_per_block=2,
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    ),
    "no attention outside": tiny_xl_unet,
}


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def arguments(unet, extra):
    """All that a call takes, with the residuals of a ControlNet or a T2I-Adapter."""
    adapter = tiny_adapter(unet)
    adapter.graft(unet)
    grounding = adapter(random_locations(ROWS, 3), normal(1, ROWS, 3, 32), instance_mask="visibility")
    width = unet.config.cross_attention_dim
    given = {"encoder_hidden_states": normal(2, ROWS, 7, width), "cross_attention_kwargs": {"grounding": grounding}}
    if unet.config.addition_embed_type:
        given["added_cond_kwargs"] = {"text_embeds": normal(3, ROWS, 40), "time_ids": normal(4, ROWS, 6)}
    size, skips, ends = 16, [(unet.conv_in.out_channels, 16)], []
    for block in unet.down_blocks:
        channels = block.resnets[0].out_channels
        skips += [(channels, size)] * len(block.resnets)
        if block.downsamplers is not None:
            size //= 2
            skips.append((channels, size))
        ends.append((channels, size if block.downsamplers is None or not hasattr(block, "attentions") else 2 * size))
    if extra == "control":
        given["down_block_additional_residuals"] = [normal(9, ROWS, c, s, s) for c, s in skips]
        given["mid_block_additional_residual"] = normal(10, ROWS, skips[-1][0], size, size)
    if extra == "t2i":
        given["down_intrablock_additional_residuals"] = [normal(11, ROWS, c, s, s) for c, s in ends]
    if extra == "freeu":
        unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    return given


def copied(given):
    """The UNet takes maps off the list of a T2I-Adapter."""
    return {name: list(value) if isinstance(value, list) else value for name, value in given.items()}


@pytest.mark.parametrize("extra", ["nothing", "control", "freeu", "t2i"])
@pytest.mark.parametrize("shape", SHAPES)
def test_outer_blocks_round_features_of_the_same_call_are_the_whole(shape, extra):
    unet = SHAPES[shape]()
    given, blocks = arguments(unet, extra), OuterBlocks(unet)
    x, t = normal(0, ROWS, 4, 16, 16), torch.tensor(400)
    with torch.no_grad():
        plain = unet(x, t, return_dict=False, **copied(given))[0]
        (whole,), features = blocks.whole(unet, x, t, return_dict=False, **copied(given))
        assert torch.equal(whole, plain)
        assert torch.equal(blocks.outer(features, x, t, return_dict=False, **copied(given))[0], whole)
        # Not round other features, nor with another latent.
        assert not torch.allclose(blocks.outer(0.5 * features, x, t, **copied(given)).sample, whole, atol=1e-3)
        assert not torch.allclose(blocks.outer(features, 0.5 * x, t, **copied(given)).sample, whole, atol=1e-3)


def test_inner_blocks_run_in_every_so_many_th_call_and_when_the_grounding_ends():
    unet = tiny_unet()
    given = arguments(unet, "nothing")
    ran = []
    unet.mid_block.register_forward_hook(lambda *_: ran.append(len(calls)))
    for interval, grounded, expected in (
        (1, [True] * 3, [0, 1, 2]),
        (3, [True] * 7, [0, 3, 6]),
        (3, [True, True, False, False, False, False], [0, 2, 5]),
    ):
        calls, cache = [], DeepCache(OuterBlocks(core_network(unet)), interval)
        ran.clear()
        for on in grounded:
            scaled = {"grounding": given["cross_attention_kwargs"]["grounding"].scaled(on)}
            with torch.no_grad():
                cache(unet, on, normal(0, ROWS, 4, 16, 16), 400, **(given | {"cross_attention_kwargs": scaled}))
            calls.append(on)
        assert ran == expected
