"""Building blocks of the judge's networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each feature-map position.

    The prediction for one object then depends on no other object's contrast, as it would with norms over the picture.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        y = functional.layer_norm(x.permute(0, 2, 3, 1).float(), self.weight.shape, self.weight, self.bias)
        return y.to(x.dtype).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """A residual block that starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        y: Tensor = self.second(functional.silu(self.first(self.norm(x))))
        return x + y
