import numpy as np
import pytest
import torch

from instancediffusion.checkpoints import OfficialComponents, load_official

from .checkpoint import HERE


@pytest.fixture(scope="session")
def components(published_file) -> OfficialComponents:
    return load_official(published_file, num_heads=4)


@pytest.fixture(scope="session")
def golden():
    values = {}
    for part in ("tokens.npz", "unet.npz"):
        with np.load(HERE / part) as arrays:
            values |= {name: arrays[name] for name in arrays.files}
    return lambda name: torch.from_numpy(values[name])
