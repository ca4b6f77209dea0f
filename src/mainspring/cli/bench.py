"""``mainspring bench``: what only your own data can decide, measured on it: vector stores, and endpoints under load."""

from __future__ import annotations

import click

from mainspring.cli.bench_serve import serve
from mainspring.cli.bench_vectors import vectors

__all__ = ["command"]


@click.group(short_help="your own index in every vector store, your own endpoint under load")
def command() -> None:
    """Measure what only your own data can decide."""


command.add_command(vectors)
command.add_command(serve)
