"""Cell features: what a cell of a feature map shows, as far as the scene says so (ours; not in the paper)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instancediffusion.conditioning import LocationTensors
from instancediffusion.conditioning.frames import FRAME_FEATURES, cell_frames


class CellFeatures(nn.Module):
    """The cell's frame, and a small network's view of the frame together with its instance's caption.

    A picture of an object is a function of its name and of the place in it. Attention to grounding tokens gives every
    cell of an instance the same answer and leaves the place to later layers; here both meet in one network. It depends
    on neither x nor the time step: once per scene and size of map.
    """

    def __init__(self, caption_dim: int, hidden_dim: int, outputs: int) -> None:
        """Build the network.

        Args:
            caption_dim: width of the pooled caption features.
            hidden_dim: width of the hidden layers.
            outputs: width of the network's view.
        """
        super().__init__()
        self.width = FRAME_FEATURES + outputs
        self.mlp = nn.Sequential(
            nn.Linear(FRAME_FEATURES + caption_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, outputs),
        )

    def forward(self, locations: LocationTensors, captions: Tensor, size: tuple[int, int]) -> Tensor:
        """Features of B images.

        Args:
            locations: where the instances are, N slots.
            captions: (B, N, caption_dim) pooled caption features.
            size: (height, width) of the feature map in cells; L = height * width.

        Returns:
            (B, L, width); zeros for cells without an instance.
        """
        frames, owner = cell_frames(locations, size)
        dtype = next(self.mlp.parameters()).dtype
        frames, owner, captions = frames.to(dtype), owner.to(dtype), captions.to(dtype)
        seen = self.mlp(torch.cat([frames, owner @ captions], -1)) * owner.sum(-1, keepdim=True)
        return torch.cat([frames, seen.to(frames.dtype)], -1)
