"""The grafted stock UNet against the published UNet, and the frozen parts."""

import numpy as np
import pytest
import torch

from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.attention_mask import attention_bias

from .scenes import SETTINGS, locations

TOLERANCE = 2e-5


@torch.no_grad()
def eps(components, places, captions, x, t, context, rule="none", scale=1.0):
    grounding = components.adapter(places, captions, instance_mask=rule).scaled(scale)
    if grounding.batch_size != len(x):
        grounding = grounding.select([0] * len(x))
    return components.unet(x, t, encoder_hidden_states=context, cross_attention_kwargs={"grounding": grounding}).sample


@pytest.fixture
def conditional(components, golden):
    def run(setting="mask", size=None, **options):
        name = "eps/x" if size is None else f"eps/x/{size}"
        return eps(
            components,
            locations(golden, "scene", SETTINGS[setting]),
            golden("scene/text_embeddings"),
            golden(name),
            golden("eps/t"),
            golden("scene/context_prompt_64"),
            **options,
        )

    return run


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("setting", ["box", "point", "scribble", "mask"])
def test_conditional(conditional, golden, setting):
    close(conditional(setting), golden(f"eps/eps/cond/{setting}/sdpa"))


@pytest.mark.parametrize("setting", ["box", "point", "mask"])
def test_published_instance_mask(conditional, golden, setting):
    close(conditional(setting, rule="published"), golden(f"eps/eps/cond/{setting}/attmask_plain"))


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_grounding_scale(conditional, golden, scale):
    close(conditional(scale=scale), golden(f"eps/eps/cond/mask/alpha{scale}"))


@pytest.mark.parametrize("size", ["16x16", "32x32", "48x40", "24x64"])
def test_sizes(conditional, golden, size):
    close(conditional(size=size), golden(f"eps/eps/cond/mask/sdpa/{size}"))


@pytest.mark.parametrize("size", [None, "16x16", "32x32", "48x40", "24x64"])
def test_unconditional(components, golden, size):
    suffix = "" if size is None else f"/{size}"
    found = eps(
        components,
        LocationTensors.empty(1),
        torch.zeros(1, 0, 768),
        golden("eps/x" + suffix),
        golden("eps/t"),
        golden("scene/context_uc_64"),
    )
    close(found, golden("eps/eps/null/sdpa" + suffix))


def test_batch_of_two(components, golden):
    found = eps(
        components,
        locations(golden, "scene", SETTINGS["mask"]),
        golden("scene/text_embeddings"),
        golden("eps/x/batch2"),
        golden("eps/t/batch2"),
        golden("eps/context/batch2"),
    )
    close(found, golden("eps/eps/cond/mask/batch2"))


def test_without_scaleu(components, golden, conditional):
    saved = [(layer.b.data, layer.s.data) for layer in components.adapter.scaleu]
    try:
        for layer in components.adapter.scaleu:
            layer.b.data, layer.s.data = torch.zeros_like(layer.b), torch.zeros_like(layer.s)
        close(conditional(), golden("eps/eps/cond/mask/scaleu_off"))
    finally:
        for layer, (b, s) in zip(components.adapter.scaleu, saved, strict=True):
            layer.b.data, layer.s.data = b, s


def test_published_mask_pairs(components, golden):
    """Allowed pairs of cells and tokens, bit for bit, written out to the published 30 slots a kind."""
    places = locations(golden, "scene", SETTINGS["mask"])
    tokens = components.adapter.tokens(places, golden("scene/text_embeddings"))
    bias = attention_bias(
        "published",
        places,
        (64, 64),
        log_weight=tokens.log_weight,
        slot=tokens.slot,
        kind=tokens.kind,
        dtype=torch.float32,
    ).joined(4096)
    found = (bias[0, 0] > -torch.inf).numpy()
    cells, columns = 4096, [*range(4096)]
    for group in range(4):
        start = cells + group * 4
        columns += [start, start + 1, start + 2, *[start + 3] * 27]
    columns += range(cells + 16, cells + 80)
    packed = golden("eps/attmask_allowed_packed").numpy()
    expected = np.unpackbits(packed, axis=1)[:cells, :4280].astype(bool)
    assert np.array_equal(found[:, columns], expected)


def test_text_encoder(components, golden):
    with torch.no_grad():
        found = components.text_encoder(golden("text_vae/input_ids"))
    close(found.last_hidden_state, golden("text_vae/last_hidden_state"))
    close(found.pooler_output, golden("text_vae/pooler_output"))


def test_autoencoder(components, golden):
    vae = components.vae
    with torch.no_grad():
        decoded = vae.decode(golden("text_vae/z") / vae.config.scaling_factor).sample
        moments = vae.encode(golden("text_vae/image")).latent_dist.parameters
    close(decoded, golden("text_vae/decoded"))
    close(moments, golden("text_vae/moments"))
