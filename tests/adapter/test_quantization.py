"""Layers of 8-bit numbers against integer arithmetic of our own."""

import numpy as np
import pytest
import torch
from torch import nn

from instancediffusion.adapter.quantization import LEAST_CHANNELS, measuring, quantized


class Layers(nn.Module):
    """A convolution with a step of 2, a linear layer, and those that stay as they are.

    These are one of few channels, one that gets a row for a picture, one of box-relative values, and one that
    something else has given another way to compute.
    """

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(32, 48, 3, stride=2, padding=1)
        self.linear = nn.Linear(48, 32, bias=False)
        self.small = nn.Linear(32, LEAST_CHANNELS - 1)
        self.of_time = nn.Linear(32, 32)
        self.relative = nn.Linear(32, 32)
        self.patched = nn.Linear(32, 32)
        self.patched.forward = lambda rows: 2 * rows

    def forward(self, pixels):
        rows = self.convolution(pixels).flatten(2).transpose(1, 2)
        return self.small(self.patched(self.relative(self.linear(rows))) + self.of_time(pixels.mean((2, 3)))[:, None])


@pytest.fixture
def given():
    """Layers, and pixels of which one channel is 50 times as large as the others, and none below -.3."""
    torch.manual_seed(0)
    pixels = torch.nn.functional.silu(torch.randn(2, 32, 6, 8))
    pixels[:, 5] *= 50
    return Layers().eval(), pixels


def integers(values, scale, zero, low, high):
    return np.clip(np.rint(values / scale) + zero, low, high).astype(np.int64)


def rounded_weights(weights):
    """(O, ...) whole numbers and the step of each output channel."""
    steps = np.abs(weights).reshape(len(weights), -1).max(1) / 127
    return np.rint(weights / steps.reshape(-1, *[1] * (weights.ndim - 1))).astype(np.int64), steps


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def test_layers_compute_with_whole_numbers(given):
    """A linear layer is a product of 8-bit numbers, and these are what is multiplied and nothing else."""
    layers, _ = given
    rows = torch.randn(3, 10, 48) * torch.linspace(0.1, 4, 48)
    ranges = {}
    with measuring({"net": layers}, ranges):
        layers.linear(rows)
    low, high = ranges["net.linear"]
    assert torch.equal(low, rows.amin((0, 1))) and torch.equal(high, rows.amax((0, 1)))
    with quantized({"net": layers}, ranges):
        found = layers.linear(rows).numpy()
    magnitude = np.maximum(high.numpy(), -low.numpy())
    share = np.sqrt(magnitude / magnitude.max())
    weights, steps = rounded_weights(layers.linear.weight.numpy() * share)
    shared = rows.numpy() / share
    scale = np.abs(shared).max() / 127
    expected = (integers(shared, scale, 0, -127, 127) @ weights.T) * scale * steps
    # Where a value lies half way between two levels, float32 and float64 may choose different ones.
    assert np.quantile(np.abs(found - expected), 0.95) < 1e-4 * np.abs(expected).max()
    assert relative(torch.from_numpy(found), layers.linear(rows)) < 0.02


@torch.no_grad()
def test_which_layers_round_and_that_they_are_put_back(given):
    layers, pixels = given
    ranges, before = {}, layers(pixels)
    with measuring({"net": layers}, ranges):
        assert torch.equal(layers(pixels), before)
        layers(2 * pixels)  # ranges widen
    assert set(ranges) == {"net.convolution", "net.linear"}
    assert torch.equal(ranges["net.convolution"][1], 2 * pixels.amax((0, 2, 3)))
    with quantized({"net": layers}, ranges):
        assert 0 < relative(layers(pixels), before) < 0.03
    assert torch.equal(layers(pixels), before)
    assert [name for name, part in layers.named_modules() if "forward" in vars(part)] == ["patched"]


@torch.no_grad()
def test_a_large_channel_costs_the_others_little(given, monkeypatch):
    layers, pixels = given
    convolution, ranges = layers.convolution, {}
    with measuring({"net": layers}, ranges):
        convolution(pixels)
    others = pixels.clone()
    others[:, 5] = 0
    errors = []
    for smoothing in (0.0, 0.5):
        monkeypatch.setattr("instancediffusion.adapter.quantization.SMOOTHING", smoothing)
        with quantized({"net": layers}, ranges):
            errors.append(relative(convolution(others), convolution.__class__.forward(convolution, others)))
    assert errors[1] < errors[0] / 3
