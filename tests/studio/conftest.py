import os
import shutil
from pathlib import Path

import pytest

from tests.studio.server import running

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # of the clients in the tests; the server has to see to it by itself
REQUIRED = "INSTANCEDIFFUSION_BROWSER_TESTS"
"""Set where a missing browser is a failure, as in continuous integration; otherwise its tests are skipped."""


def required() -> bool:
    return os.environ.get(REQUIRED) == "required"


def chromium() -> str | None:
    """Debian's Chromium, or the browser `CHROMIUM` names."""
    given = os.environ.get("CHROMIUM")
    return given or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    pytest.importorskip("gradio", reason="the studio needs gradio (pip install 'instancediffusion[studio]')")
    with running(tmp_path_factory.mktemp("studio") / "root") as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    if path is None:
        if required():
            pytest.fail("no Chromium, and continuous integration wants the browser tests: apt-get install chromium")
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    if required():
        import playwright.sync_api as api
    else:
        api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    with api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Where screenshots go: the folder `STUDIO_SCREENSHOTS` names, else one that is thrown away."""
    folder = Path(os.environ.get("STUDIO_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
