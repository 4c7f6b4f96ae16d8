"""How a processor computes layers changes nothing of what is computed."""

import copy
import pickle

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import FeedForward
from torch import nn
from torch.nn import functional

from instancediffusion.adapter.kernels import QuickConvolution, QuickFeedForward, convolution, feed_forward
from instancediffusion.adapter.kernels import blocked_attention as kernels
from tests.tiny import random_locations, tiny_adapter, tiny_unet


def quick(inputs, outputs, **options):
    layer = nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **options})
    layer.__class__ = QuickConvolution
    return layer


@pytest.mark.parametrize("size", [(2, 2), (2, 8), (6, 4)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tiles", [convolution.TILES, 1000, 1])
def test_fewer_products_give_the_same_convolution(monkeypatch, size, bias, tiles):
    monkeypatch.setattr(convolution, "TILES", tiles)
    generator = torch.Generator().manual_seed(0)
    pixels, weight = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 5, *size), (7, 5, 3, 3))
    )
    offset = torch.randn(7, generator=generator, dtype=torch.float64) if bias else None
    expected = functional.conv2d(pixels, weight, offset, padding=1)
    for given in (pixels, pixels.contiguous(memory_format=torch.channels_last)):
        for found in (
            convolution.winograd(given, convolution.winograd_weights(weight), offset),
            convolution.gathered(given, weight, offset),
        ):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_layer_chooses_and_follows_its_weights(monkeypatch):
    taken = []
    for name in ("winograd", "gathered"):
        own = getattr(convolution, name)
        monkeypatch.setattr(convolution, name, lambda *a, own=own, name=name: taken.append(name) or own(*a))
    layer, x = quick(64, 96), torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(0))

    def same(x=x, layer=layer):
        with torch.no_grad():
            expected = functional.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
            torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)

    same()
    with torch.no_grad():
        layer.weight.mul_(-2)  # as a LoRA layer that is fused
    same()
    layer.weight.data = layer.weight.data.flip(0)
    same()
    layer.load_state_dict(quick(64, 96).state_dict())
    same()
    assert taken == ["winograd"] * 4
    with monkeypatch.context() as patch:
        patch.setattr(convolution, "KEPT", 1000)
        same()
        assert taken.pop() == "gathered"
        same(x.repeat(2, 1, 1, 1))
    for odd in (x[..., :15, :], x[:, :32]):
        same(odd, layer if odd.shape[1] == 64 else quick(32, 96))
    same(layer=quick(64, 96, stride=2))
    assert len(taken) == 4
    layer(x).sum().backward()
    assert layer.weight.grad is not None and len(taken) == 4
    assert "_kept" in vars(layer)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert "_kept" not in vars(other)
        same(layer=other)


def test_attention_in_blocks_is_attention(monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", 16)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator, dtype=torch.float64) for n in (40, 45, 45))
    bias = torch.randn(2, 1, 40, 5, generator=generator, dtype=torch.float64)
    bias[0, 0, :7] = -torch.inf
    for told in (None, bias, bias[:, :, :1]):
        mask = None if told is None else functional.pad(told, (40, 0))
        expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        torch.testing.assert_close(kernels.in_blocks(q, k, v, told), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(kernels.attention(q, k, v, told), expected, rtol=0, atol=1e-12)
    half = kernels.in_blocks(*(part.bfloat16() for part in (q, k, v)), bias)
    expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=functional.pad(bias, (40, 0)))
    assert (half - expected).abs().max() < 0.02 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_network_says_the_same_whatever_is_chosen(monkeypatch, dtype):
    """All choices at once, against the stock classes and kernels."""
    unet = tiny_unet()
    adapter = tiny_adapter(unet)
    for part in (unet, adapter):
        part.to(dtype)
    x, context = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.ones(2, 6, 32)
    captions = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1))

    def call(x=x):
        told = {"grounding": adapter(random_locations(2, 3), captions.to(dtype))}
        return unet(x.to(dtype), 300, context.to(dtype), cross_attention_kwargs=told).sample.float()

    adapter.graft(unet)
    monkeypatch.setattr(convolution, "LEAST_CHANNELS", 1000)
    monkeypatch.setattr(kernels, "blocks_pay", lambda width, threads: False)
    monkeypatch.setattr(feed_forward, "ROWS", 100_000)
    expected = call()
    monkeypatch.setattr(convolution, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(convolution, "LEAST_PIXELS", 1)
    monkeypatch.setattr(convolution, "KEPT", 10_000)  # some layers this way, some that way
    monkeypatch.setattr(kernels, "blocks_pay", lambda width, threads: True)
    monkeypatch.setattr(kernels, "_LEAST", 1)
    monkeypatch.setattr(kernels, "BLOCK", 64)
    monkeypatch.setattr(feed_forward, "ROWS", 100)
    error = 1e-5 if dtype == torch.float32 else 0.03
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(call(given), expected, rtol=0, atol=error * float(expected.abs().max()))


def test_taking_the_adapter_off_brings_stock_classes_back():
    unet = tiny_unet()
    adapter = tiny_adapter(unet)
    before = {name: type(module) for name, module in unet.named_modules()}
    adapter.graft(unet)
    assert any(type(module) is QuickConvolution for module in unet.modules())
    adapter.remove()
    assert {name: type(module) for name, module in unet.named_modules()} == before
    assert isinstance(unet, UNet2DConditionModel)


def test_feed_forward_in_blocks_of_rows(monkeypatch):
    """Blocks that do not divide the rows and lie across images, and none where gradients are recorded."""
    monkeypatch.setattr(feed_forward, "ROWS", 5)
    torch.manual_seed(0)
    layer, seen = FeedForward(8, activation_fn="geglu").double(), []
    layer.net[0].register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    expected = layer(x)
    layer.__class__ = QuickFeedForward
    assert torch.equal(layer(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(layer(x[:1, :5]), expected[:1, :5], rtol=0, atol=1e-12)
    assert seen == [6, 6, 5, 5, 2, 5]
