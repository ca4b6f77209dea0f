"""Retrieval with the defaults on judged collections: BM25, dense, hybrid; and how well chunks hold the gold spans.

Bars: nDCG@10 of the hybrid >= .404 on Cranfield and >= .783 on product-docs.

    ./run bench retrieval_quality [--data FOLDER] [--cache FILE] [--max-tokens N] [--merge-tokens N] [--prefix-tokens N]

The folder holds ``<set>/corpus.jsonl.gz``, ``queries.jsonl`` and ``qrels.tsv``, and ``chunking/*.md.gz`` with
``questions.jsonl``; the collections' licences keep them out of this repository.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from qdrant_edge import Bm25, Bm25Config

from mainspring.adapters.onnxruntime.embedder import OnnxEmbedder, open_embedder
from mainspring.adapters.onnxruntime.settings import EmbedderSettings
from mainspring.metrics.retrieval import averaged, ndcg, recall_at, reciprocal_rank
from mainspring.ports.parser import Parsed
from mainspring.rag.chunk import Chunk, Chunker, ChunkSpec
from mainspring.rag.ids import text_hash
from mainspring.rag.ruler import Ruler

BARS = {"cranfield": 0.404, "product-docs": 0.783}
CANDIDATES, K = 50, 60
FOUND = 5


class Cached:
    """An embedder whose vectors are kept in a file, for runs that change something else."""

    def __init__(self, embedder: OnnxEmbedder, path: Path | None) -> None:
        self._embedder = embedder
        self._path = path
        self._known: dict[str, np.ndarray] = {}
        if path and path.exists():
            held = np.load(path)
            self._known = dict(zip(held["keys"].tolist(), held["vectors"], strict=True))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        keys = [text_hash(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            self._known |= dict(zip(missing, self._embedder.embed_documents(list(missing.values())), strict=True))
            if self._path:
                np.savez(self._path, keys=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))
        return np.stack([self._known[key] for key in keys])


@dataclass(frozen=True)
class Index:
    """Chunks of documents with their vectors and terms, searched by brute force."""

    documents: list[str]
    chunks: list[Chunk]
    vectors: np.ndarray
    postings: dict[int, list[tuple[int, float]]]
    bm25: Bm25

    @classmethod
    def of(cls, corpus: Sequence[tuple[str, Parsed]], chunker: Chunker, embedder: Cached) -> Index:
        documents, chunks = [], []
        for document, parsed in corpus:
            found = chunker.chunks(parsed)
            chunks += found
            documents += [document] * len(found)
        texts = [chunk.text for chunk in chunks]
        words = float(np.mean([len(text.split()) for text in texts]))
        bm25 = Bm25(Bm25Config(language="english", k=1.2, b=0.75, avg_len=words))
        postings: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for row, text in enumerate(texts):
            sparse = bm25.embed_document(text)
            for term, weight in zip(sparse.indices, sparse.values, strict=True):
                postings[term].append((row, weight))
        return cls(documents, chunks, embedder.embed(texts), postings, bm25)

    def text(self, query: str) -> list[int]:
        """The best chunks by BM25: term weights times the inverse document frequency that Qdrant's modifier has."""
        scores: dict[int, float] = defaultdict(float)
        count = len(self.chunks)
        for term in self.bm25.embed_query(query).indices:
            rows = self.postings.get(term, ())
            idf = np.log(1 + (count - len(rows) + 0.5) / (len(rows) + 0.5))
            for row, weight in rows:
                scores[row] += weight * idf
        return sorted(scores, key=lambda row: -scores[row])[:CANDIDATES]

    def dense(self, vector: np.ndarray) -> list[int]:
        """The best chunks by dot product."""
        scores = self.vectors @ vector
        top = np.argpartition(-scores, min(CANDIDATES, len(scores) - 1))[:CANDIDATES]
        found: list[int] = top[np.argsort(-scores[top])].tolist()
        return found


def fused(*legs: list[int]) -> list[int]:
    """Reciprocal rank fusion, ranks from 1."""
    scores: dict[int, float] = defaultdict(float)
    for leg in legs:
        for rank, row in enumerate(leg, 1):
            scores[row] += 1 / (K + rank)
    return sorted(scores, key=lambda row: -scores[row])


def legs(index: Index, query: str, vector: np.ndarray) -> dict[str, list[int]]:
    text, dense = index.text(query), index.dense(vector)
    return {"bm25": text, "dense": dense, "hybrid": fused(text, dense)}


def judged(folder: Path, chunker: Chunker, embedder: Cached, model: OnnxEmbedder) -> dict[str, float]:
    """nDCG@10 of each leg on one collection; documents are ranked by their best chunk."""
    began = time.process_time()
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    corpus = [(entry["_id"], Parsed(entry["text"], entry.get("title", ""))) for entry in entries]
    index = Index.of(corpus, chunker, embedder)
    gains: dict[str, dict[str, float]] = defaultdict(dict)
    for line in (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, gain = line.split("\t")
        gains[query][document] = float(gain)
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text("utf-8").splitlines()]
    scores: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for query in queries:
        mine = gains.get(query["_id"], {})
        relevant = {document for document, gain in mine.items() if gain > 0}
        for name, rows in legs(index, query["text"], model.embed_query(query["text"])).items():
            ranked = list(dict.fromkeys(index.documents[row] for row in rows))
            scores[name].append(
                (ndcg(ranked, mine, 10), recall_at(ranked, relevant, 100), reciprocal_rank(ranked, relevant, 10))
            )
    mean = float(np.mean([chunk.tokens for chunk in index.chunks]))
    print(
        f"\n{folder.name}: {len(corpus)} documents, {len(index.chunks)} chunks of {mean:.0f} tokens, {len(queries)} "
        f"queries, {time.process_time() - began:.0f} CPU s"
    )
    found = {}
    for name, rows in scores.items():
        values = [averaged(column) for column in zip(*rows, strict=True)]
        found[name] = values[0]
        print(f"  {name:<7} nDCG@10 {values[0]:.3f}  R@100 {values[1]:.3f}  MRR@10 {values[2]:.3f}")
    return found


def spans(folder: Path, chunker: Chunker, embedder: Cached, model: OnnxEmbedder) -> None:
    """How much of the gold characters the first chunks hold, and how much of them is gold."""
    corpus = []
    for path in sorted(folder.glob("*.md.gz")):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            corpus.append((path.name.removesuffix(".md.gz"), Parsed(file.read())))
    index = Index.of(corpus, chunker, embedder)
    questions = [json.loads(line) for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()]
    print(f"\nchunking: {len(index.chunks)} chunks, {len(questions)} questions, first {FOUND} chunks")
    scores: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for question in questions:
        gold = {at for start, end in question["spans"] for at in range(start, end)}
        for name, rows in legs(index, question["q"], model.embed_query(question["q"])).items():
            held, shown = set(), 0
            for row in rows[:FOUND]:
                chunk = index.chunks[row]
                shown += chunk.end - chunk.start
                if index.documents[row] == question["doc"]:
                    held |= gold.intersection(range(chunk.start, chunk.end))
            scores[name].append((len(held) / len(gold), len(held) / shown, len(held) / (shown + len(gold) - len(held))))
    for name, rows in scores.items():
        recall, precision, iou = (averaged(column) for column in zip(*rows, strict=True))
        print(f"  {name:<7} gold characters: recall {recall:.3f}  precision {precision:.4f}  IoU {iou:.4f}")


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "retrieval")
    options.add_argument("--cache", type=Path)
    options.add_argument("--max-tokens", type=int, default=ChunkSpec().max_tokens)
    options.add_argument("--merge-tokens", type=int, default=ChunkSpec().merge_tokens)
    options.add_argument("--prefix-tokens", type=int, default=ChunkSpec().prefix_tokens)
    given = options.parse_args()
    if not given.data.is_dir():
        print(f"no collections in {given.data}: give --data", file=sys.stderr)
        return 2
    model = open_embedder(EmbedderSettings(), Path())
    spec = ChunkSpec(given.max_tokens, given.prefix_tokens, given.merge_tokens)
    chunker = Chunker(Ruler.of(model), spec, model.max_tokens)
    embedder = Cached(model, given.cache)
    print(f"{datetime.now(UTC):%Y-%m-%d}  {model.id}  {spec}")
    met = True
    for name, bar in BARS.items():
        hybrid = judged(given.data / name, chunker, embedder, model)["hybrid"]
        met = met and hybrid >= bar
        print(f"  bar {bar:.3f}: {'met' if hybrid >= bar else 'MISSED'}")
    spans(given.data / "chunking", chunker, embedder, model)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
