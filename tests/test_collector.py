import gc

import pytest

from instancediffusion.cli.libraries import uncollected


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
