import numpy as np
import pytest
import torch

from instancediffusion.checkpoints import OfficialComponents, load_official

from .checkpoint import HERE, published_checkpoint


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "micro.pth"
    torch.save(published_checkpoint(), path)
    return path


@pytest.fixture(scope="session")
def components(checkpoint_path) -> OfficialComponents:
    return load_official(checkpoint_path, num_heads=4)


@pytest.fixture(scope="session")
def golden():
    values = {}
    for part in ("tokens.npz", "unet.npz"):
        with np.load(HERE / part) as arrays:
            values |= {name: arrays[name] for name in arrays.files}
    return lambda name: torch.from_numpy(values[name])
