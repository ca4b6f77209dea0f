"""OpenMP's threads sleep while they wait: tests share the machine's cores."""

import os

import pytest

from mainspring.adapters.sqlite.catalog import SqliteCatalog

os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture
def catalog(tmp_path):
    made = SqliteCatalog(tmp_path / "catalog.db")
    yield made
    made.close()
