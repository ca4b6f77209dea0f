"""Every catalog, against the one contract; then what SQLite alone promises."""

import functools

import pytest

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.testing.catalog import CatalogContract
from mainspring.testing.crew import Crew


@pytest.fixture(scope="module")
def crew():
    with Crew() as members:
        yield members


@pytest.fixture
def opening(tmp_path):
    return functools.partial(SqliteCatalog, tmp_path / "catalog.db")


class TestSqlite(CatalogContract):
    """The embedded catalog."""
