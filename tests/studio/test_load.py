"""Twenty clients at once, for a few seconds; `benchmarks/studio_load.py` is the long version."""

import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def load(repository):
    spec = importlib.util.spec_from_file_location("studio_load", repository / "benchmarks" / "studio_load.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.load


def test_twenty_clients_get_what_they_asked_for(studio, load):
    report = load(studio.url, studio.process.pid, clients=20, seconds=8, steps=2)
    assert report["first_faults"] == []
    assert report["pictures"] >= 20
    assert studio.memory_mib() < 3000
