import pytest

from tests.tiny_pipeline import tiny_pipeline


@pytest.fixture(scope="session")
def pipe(tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp("tokenizer"))
