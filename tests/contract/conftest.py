"""Servers that several contract suites use, started at their first use and once a run."""

import pytest

import redis_server
from postgres import running


@pytest.fixture(scope="session")
def postgres_url():
    """A Postgres with pgvector; a suite that writes tables uses names of its own, or empties them."""
    with running() as url:
        yield url


@pytest.fixture(scope="session")
def redis_url():
    """A Redis; a suite uses a prefix of its own."""
    with redis_server.running() as url:
        yield url
