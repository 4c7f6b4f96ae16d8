"""Which instance stands in front of which, as far as a scene says so."""

from __future__ import annotations

import torch
from torch import Tensor

from instancediffusion.conditioning.locations import LocationTensors


def nearer(locations: LocationTensors) -> Tensor:
    """(B, N, N) float32: at [b, i, j], 1 where j is stated to be in front of i, 0 where behind, 1/2 where neither is.

    Slots of no instance, and an instance beside itself, have 0.
    """
    rank, known, used = locations.z_order, locations.z_known, locations.used
    front = (rank[:, None, :] > rank[:, :, None]).float()
    stated = known[:, None, :] & known[:, :, None] & (rank[:, None, :] != rank[:, :, None])
    other = ~torch.eye(locations.slots, dtype=torch.bool, device=locations.device)
    return torch.where(stated, front, 0.5) * (used[:, None, :] & used[:, :, None] & other)
