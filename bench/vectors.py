"""Vector stores in the process: qdrant-edge beside zvec: build, recall, questions a CPU second, filters, disk, memory.

``python bench/vectors.py [--rows 100000] [--dims 384] [--text] [--stores qdrant_edge,zvec]``; a million rows take about
half an hour and 6 GiB. Each store is built in a process of its own, and asked in another that has only opened it.
The rows are unit vectors as embeddings are: clusters of unequal size in 64 dimensions, turned into 384, with noise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.adapters.qdrant_edge.vector_store import open_store as open_edge
from mainspring.adapters.zvec.settings import ZvecSettings
from mainspring.adapters.zvec.vector_store import open_store as open_zvec
from mainspring.ports.vector_store import Eq, VectorStore
from mainspring.rag.choosing import SHARE, TARGETS, Rows, asked, build, nearest, resident, shares_of

QUERIES, K = 200, 10
STORES: dict[str, Callable[[Path], VectorStore]] = {
    "qdrant_edge": lambda place: open_edge(QdrantEdgeSettings(search_threads=1), place),
    "zvec": lambda place: open_zvec(ZvecSettings(search_threads=1), place),
}


def made(place: Path, rows: int, dims: int) -> None:
    """Write the rows, the queries and the true nearest, plain and under the filter."""
    chance = np.random.default_rng(20261127)
    latent, clusters = 64, max(16, int(rows**0.5))
    centres = chance.normal(size=(clusters, latent)).astype(np.float32)
    turn = chance.normal(size=(latent, dims)).astype(np.float32) / latent**0.5
    weights = 1 / np.arange(1, clusters + 1) ** 0.7
    weights /= weights.sum()

    def some(count: int) -> np.ndarray:
        inner = centres[chance.choice(clusters, size=count, p=weights)]
        inner = inner + chance.normal(size=(count, latent)).astype(np.float32) * 0.6
        found = inner @ turn + chance.normal(size=(count, dims)).astype(np.float32) * 0.15
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    vectors = np.lib.format.open_memmap(place / "rows.npy", "w+", np.float32, (rows, dims))
    for start in range(0, rows, 50_000):
        vectors[start : start + 50_000] = some(min(50_000, rows - start))
    queries = some(QUERIES)
    where = np.flatnonzero(shares_of(rows) == 7)
    np.save(place / "queries.npy", queries)
    np.save(place / "truth.npy", nearest(vectors, queries, K))
    np.save(place / "filtered.npy", where[nearest(vectors[where], queries, K)])


def ids_of(rows: int) -> list[str]:
    # Spread like UUIDs of chunks, and made faster.
    numbers = np.random.default_rng(5).integers(0, 1 << 32, size=(rows, 4), dtype=np.uint64)
    return [f"{a:08x}-{b >> 16:04x}-{b & 0xFFFF:04x}-{c >> 16:04x}-{c & 0xFFFF:04x}{d:08x}" for a, b, c, d in numbers]


def texts_of(rows: int) -> list[str]:
    chance = np.random.default_rng(6)
    words = np.array([f"word{n}" for n in range(20_000)])
    return [" ".join(words[(chance.zipf(1.3, 40) - 1) % len(words)]) for _ in range(rows)]


def job(what: str, name: str, place: Path, text: bool) -> dict[str, object]:
    """One phase, in this process: ``build`` or ``ask``."""
    vectors = np.load(place / "rows.npy", mmap_mode="r")
    rows = Rows(ids_of(len(vectors)), vectors, texts_of(len(vectors)) if text and what == "build" else ())
    store = STORES[name](place / name)
    shares = shares_of(len(vectors))
    if what == "build":
        built = build(store, "i", rows, shares)
        store.close()
        return {**msgspec.to_builtins(built), "cpu": built.cpu}
    queries, truth = np.load(place / "queries.npy"), np.load(place / "truth.npy")
    before = resident()
    plain = [asked(store, "i", rows.ids, queries, truth, None, target) for target in TARGETS]
    filtered_truth = np.load(place / "filtered.npy")
    filtered = [asked(store, "i", rows.ids, queries, filtered_truth, Eq(SHARE, 7), target) for target in TARGETS[:2]]
    found: dict[str, object] = {"memory": resident() - before, "unindexed": store.stats("i").unindexed}
    for key, each in (("plain", plain), ("filtered", filtered)):
        found[key] = [{**msgspec.to_builtins(one), "per_cpu_second": one.per_cpu_second} for one in each]
    if text:
        words = [f"word{n % 300} word{n}" for n in range(QUERIES)]
        both = asked(store, "i", rows.ids, queries, truth, None, TARGETS[0], words=words)
        found["hybrid_per_cpu_second"] = both.per_cpu_second
    store.close()
    return found


def row(name: str, built: dict, found: dict) -> str:
    enough = next((one for one in found["plain"] if one["recall"] >= 0.95), found["plain"][-1])
    filtered = next((one for one in found["filtered"] if one["recall"] >= 0.98), found["filtered"][-1])
    hybrid = f"{found['hybrid_per_cpu_second']:,.0f}" if "hybrid_per_cpu_second" in found else "-"
    return (
        f"| {name} | {built['write']['cpu']:,.0f} + {built['optimise']['cpu']:,.0f} "
        f"| {enough['recall']:.3f} at {enough['per_cpu_second']:,.0f} | {filtered['recall']:.3f} at "
        f"{filtered['per_cpu_second']:,.0f} | {hybrid} | {built['bytes_allocated'] / 1e6:,.0f} "
        f"| {found['memory'] / 1e6:,.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--text", action="store_true", help="index words too, and measure hybrid search")
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--job", nargs=3, metavar=("WHAT", "STORE", "PLACE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        what, name, place = given.job
        print(json.dumps(job(what, name, Path(place), given.text)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made(place, given.rows, given.dims)
        print(f"{datetime.now(UTC):%Y-%m-%d}  {given.rows:,} x {given.dims}, {QUERIES} questions, k {K}")
        print("| store | build CPU s: write + graph | recall at q/CPU s | 1 % filter | hybrid | disk MB | memory MB |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for name in given.stores.split(","):
            both = []
            for what in ("build", "ask"):
                command = [sys.executable, __file__, *(["--text"] if given.text else []), "--job", what, name, folder]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                both.append(json.loads(done.stdout.splitlines()[-1]))
            print(row(name, *both), flush=True)
            print(f"  {name} {json.dumps(both)}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
