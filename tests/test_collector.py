import gc
import importlib.util
import subprocess
import sys

import pytest

from instancediffusion.cli import libraries
from instancediffusion.cli.libraries import UNASKED, uncollected, unloaded


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_off_inside_and_as_before_afterwards(was_on):
    before = gc.isenabled()
    try:
        gc.unfreeze()
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(ImportError), uncollected():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == was_on
        assert gc.get_freeze_count() > 1000  # what was loaded is not walked later either
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()


def test_packages_are_hidden_meanwhile_and_where_a_process_runs_one_command(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with unloaded(("colorsys",)):
        assert importlib.util.find_spec("colorsys") is not None
    monkeypatch.setattr(libraries, "_one_command", True)
    with unloaded(("colorsys", "sys")):
        assert importlib.util.find_spec("colorsys") is None
        with pytest.raises(ImportError):
            import colorsys
    import colorsys

    assert colorsys.rgb_to_hls(0, 0, 0) == (0, 0, 0)


@pytest.mark.parametrize("asked", [(), pytest.param(("--scheduler", "lms"), marks=pytest.mark.slow)])
def test_generate_loads_what_its_run_uses(tmp_path, asked):
    """A plain picture without the libraries of LoRA files, schedulers and text encoders; asked for, they are there."""
    ask = ["generate", "a red ball", "-o", str(tmp_path / "a"), "--steps", "1", *asked]
    code = f"""
import atexit, sys
from instancediffusion import cli
sys.argv[1:] = {ask!r}
atexit.register(lambda: print(*[name for name in {UNASKED} if name in sys.modules]))
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2].split() == (list(UNASKED) if asked else [])
    assert list((tmp_path / "a").glob("*_0.png"))
