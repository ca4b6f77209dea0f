"""Services for the engine's tests: a real catalog and real blobs in a temporary folder."""

import pytest

from engine_bench import BenchServices


@pytest.fixture
def services(tmp_path):
    made = BenchServices(str(tmp_path))
    yield made
    made.close()
