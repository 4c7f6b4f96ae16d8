"""What all tests share: no network unless asked for, one thread for each worker, the repository's folders."""

import os
from pathlib import Path

import pytest

# Read by the hub's client when it is imported; a test that needs the hub carries the marker `network` and unsets it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that each start as many threads as there are cores wait for one another most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds `pyproject.toml`."""
    return ROOT


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of example scenes."""
    return ROOT / "examples"


@pytest.fixture(scope="session")
def published_file(tmp_path_factory):
    """The checkpoint of `tests.golden`, 134 MB, written once for all who read it."""
    import torch  # here, since many tests need no torch

    from tests.golden.checkpoint import published_checkpoint

    path = tmp_path_factory.mktemp("published") / "micro.pth"
    torch.save(published_checkpoint(), path)
    return path
