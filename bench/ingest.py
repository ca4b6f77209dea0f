"""From files to an index that answers: CPU beside LangChain with Chroma, and beside the bare ONNX loop.

Bars: without embedding >= 5x LangChain's usual loaders, its splitter and Chroma, vectors being given to both sides;
with embedding >= 90 % of tokenising and running the model on the same chunks in the best batches, and nothing else.

    ./run bench ingest [--peer] [--debian | --docs FOLDER] [--rounds N]

Ours is a whole first sync: listing, hashes, parsing in child processes and their start, chunks, manifest, texts,
points, words, flushes, the graph; making the empty store is in the time of both. "Engine alone" is what the vector
engine's own calls take for the same points: what no sync can be cheaper than. ``--peer`` installs the peers and
measures them. ``--debian`` takes manuals of Debian's packages (HTML, TXT, PDF; by apt-get) and the project's own pages
as MD and DOCX; without it, the own pages in five forms.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import venv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import markdown
import numpy as np
import qdrant_edge as edge

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from documents import docx, pdf  # noqa: E402
from mainspring.adapters.kreuzberg.parser import KreuzbergParser  # noqa: E402
from mainspring.adapters.kreuzberg.settings import KreuzbergSettings  # noqa: E402
from mainspring.adapters.localfs.objects import open_objects  # noqa: E402
from mainspring.adapters.localfs.settings import LocalSettings  # noqa: E402
from mainspring.adapters.onnxruntime.embedder import OnnxEmbedder, open_embedder  # noqa: E402
from mainspring.adapters.onnxruntime.settings import EmbedderSettings  # noqa: E402
from mainspring.adapters.qdrant_edge.index import made_shard  # noqa: E402
from mainspring.adapters.qdrant_edge.payloads import Payloads  # noqa: E402
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings  # noqa: E402
from mainspring.adapters.qdrant_edge.vector_store import open_store  # noqa: E402
from mainspring.adapters.sqlite.manifest import open_manifest  # noqa: E402
from mainspring.adapters.sqlite.settings import SqliteSettings  # noqa: E402
from mainspring.ports.parser import Parsed  # noqa: E402
from mainspring.rag.chunk import Chunk, Chunker, ChunkSpec  # noqa: E402
from mainspring.rag.ruler import Ruler  # noqa: E402
from mainspring.rag.shape import IndexShape, VersionShape  # noqa: E402
from mainspring.rag.sync import Folder  # noqa: E402
from mainspring.rag.versions import UNINDEXED, IndexPorts, bring_up  # noqa: E402

PLACE = Path(__file__).resolve().parent / ".peers" / "ingest"
CORPUS = PLACE.with_name("corpus")
KINDS = ("html", "md", "txt", "docx", "pdf")
PACKAGES = ("python3.11-doc", "debian-policy", "maint-guide", "developers-reference", "r-doc-pdf")
PAGES = {"html": 80, "txt": 160}
MANUALS = ("policy.pdf", "R-admin.pdf", "R-intro.pdf", "developers-reference.pdf", "maint-guide.en.pdf")
PEERS = (
    "langchain-community==0.4.2",
    "langchain-text-splitters==1.1.3",
    "langchain-chroma==1.1.0",
    "chromadb==1.5.9",
    "pypdf==7.1.0",
    "beautifulsoup4==4.15.0",
    "lxml",
    "docx2txt==0.9",
)
PEER = """
import json, sys, tempfile, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from langchain_chroma import Chroma
from langchain_community.document_loaders import BSHTMLLoader, Docx2txtLoader, PyPDFLoader, TextLoader
from langchain_core.embeddings import Embeddings
from langchain_text_splitters import RecursiveCharacterTextSplitter
LOADERS = {".pdf": PyPDFLoader, ".html": BSHTMLLoader, ".docx": Docx2txtLoader, ".md": TextLoader, ".txt": TextLoader}
class Given(Embeddings):
    def __init__(self):
        drawn = np.random.default_rng(0).standard_normal((4096, 384)).astype(np.float32)
        self.rows = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).tolist()
    def embed_documents(self, texts):
        return [self.rows[i % 4096] for i in range(len(texts))]
    def embed_query(self, text):
        return self.rows[0]
files = [Path(line) for line in sys.stdin.read().splitlines()]
splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
def count(text):
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
bounded = RecursiveCharacterTextSplitter(chunk_size=254, chunk_overlap=0, length_function=count)
given = Given()
started = time.process_time()
store = Chroma(embedding_function=given, persist_directory=tempfile.mkdtemp())
store.add_texts(["warm"])
began = time.process_time()
documents = [document for path in files for document in LOADERS[path.suffix](str(path)).load()]
parsed = time.process_time()
chunks = splitter.split_documents(documents)
split = time.process_time()
for start in range(0, len(chunks), 1000):
    part = chunks[start:start + 1000]
    store.add_texts([c.page_content for c in part], [{"source": c.metadata["source"]} for c in part])
stored = time.process_time()
bounded.split_documents(documents)
by_tokens = time.process_time()
print("ANSWER" + json.dumps({"parse": parsed - began, "split": split - parsed,
    "chroma": stored - split + began - started,
    "made": began - started,
    "by tokens": by_tokens - stored,
    "chunks": len(chunks), "characters": sum(len(d.page_content) for d in documents)}))
"""


def own_pages(folder: Path, kinds: Sequence[str] = KINDS) -> None:
    """The project's own pages in several formats."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    for number, page in enumerate(pages):
        text = page.read_text("utf-8")
        lines = [line[start : start + 100] for line in text.splitlines() for start in range(0, max(len(line), 1), 100)]
        blocks = [
            (len(part) - len(part.lstrip("#")), part.lstrip("# ")) if part.startswith("#") else part
            for part in text.split("\n\n")
        ]
        made = {
            "md": text.encode(),
            "txt": text.encode(),
            "html": f"<html><head><title>{page.stem}</title></head><body>"
            f"{markdown.markdown(text, extensions=['tables', 'fenced_code'])}</body></html>".encode(),
            "docx": docx(blocks, page.stem),
            "pdf": pdf([lines[start : start + 55] for start in range(0, len(lines), 55)], page.stem),
        }
        for ending in kinds:
            (folder / f"{number}.{ending}").write_bytes(made[ending])


def debian_pages(folder: Path) -> None:
    """Manuals as Debian ships them, and the own pages in the two formats that it has not."""
    there = CORPUS / "there"
    if not there.exists():
        CORPUS.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=CORPUS, check=True, capture_output=True)
        for package in CORPUS.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, there], check=True)
    for kind, pattern in (("html", "html/**/*.html"), ("txt", "html/_sources/**/*.txt")):
        pages = sorted(there.glob(f"usr/share/doc/python3.11/{pattern}"))
        for number, page in enumerate(pages[:: max(len(pages) // PAGES[kind], 1)][: PAGES[kind]]):
            (folder / f"python-{number}.{kind}").write_bytes(page.read_bytes())
    for manual in there.rglob("*.pdf*"):
        if manual.name.removesuffix(".gz") in MANUALS and not manual.is_symlink():
            data = manual.read_bytes()
            (folder / manual.name.removesuffix(".gz")).write_bytes(
                gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            )
    own_pages(folder, ("md", "docx"))


def cpu() -> float:
    """Processor time of this process and of the children that have ended, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Given:
    """The model's tokens, and vectors that cost nothing."""

    id, normalised, query_prefix = "given", True, ""

    def __init__(self, model: OnnxEmbedder) -> None:
        self.dims, self.max_tokens, self.tokenizer, self.count = (
            model.dims,
            model.max_tokens,
            model.tokenizer,
            model.count,
        )
        drawn = np.random.default_rng(0).standard_normal((4096, self.dims)).astype(np.float32)
        self._rows = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        return self._rows[np.arange(len(texts)) % 4096]

    def embed_query(self, text: str) -> np.ndarray:
        return self._rows[0]


def indexed_by_us(folder: Path, model: OnnxEmbedder) -> tuple[float, int]:
    """A first sync of a folder, with the defaults of the embedded adapters; CPU seconds, and chunks."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        store, manifest = open_store(QdrantEdgeSettings(), place), open_manifest(SqliteSettings(), place)
        parser = KreuzbergParser(KreuzbergSettings(workers=1))
        objects = open_objects(LocalSettings(), place)
        clock = itertools.count(1).__next__
        ports = IndexPorts(manifest, objects, store, "qdrant_edge", Given(model), parser, clock)
        began = cpu()
        done = bring_up(IndexShape("library"), [Folder("manuals", folder)], ports, by="bench")
        parser.close()
        used = cpu() - began
        if done.documents.quarantined:
            print(f"  put aside: {done.documents.quarantined}")
        store.close()
        manifest.close()
    return used, done.chunks


def parsed_by_us(files: list[Path], way: Literal["fast", "structured"] = "fast") -> tuple[float, list[Parsed]]:
    began = cpu()
    parser = KreuzbergParser(KreuzbergSettings(workers=1, pdf=way))
    found = [parser.parse(path, path.name) for path in files]
    parser.close()
    return cpu() - began, [one for one in found if isinstance(one, Parsed)]


def chunked_by_us(documents: list[Parsed], chunker: Chunker) -> tuple[float, list[Chunk]]:
    began = cpu()
    chunks = [chunk for document in documents for chunk in chunker.chunks(document)]
    return cpu() - began, chunks


def engine_alone(chunks: Sequence[Chunk]) -> float:
    """Words, points, upserts, flush and graph by the engine's own calls, all else being at hand; CPU seconds."""
    schema = VersionShape("given", 384, ChunkSpec(), "english", (), "qdrant_edge", 100.0).schema()
    rows = np.random.default_rng(0).standard_normal((4096, 384)).astype(np.float32)
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()
    ids = [str(uuid.UUID(int=number)) for number in range(len(chunks))]
    about = {"doc": "0" * 32, "source": "manuals", "uri": "a.md", "folders": [], "title": "A", "acl": ["public"]}
    about |= {"tenant": "", "trust": "data", "dv": 1, "chunk": "0" * 32}
    stored = Payloads(schema.types).stored
    payloads = [
        stored({**about, "path": list(one.path), "start": one.start, "end": one.end, "text": one.body})
        for one in chunks
    ]
    with tempfile.TemporaryDirectory() as name:
        began = cpu()
        made_shard(Path(name), schema, QdrantEdgeSettings())
        shard = edge.EdgeShard.load(f"{name}/shard-1")
        words = edge.Bm25(edge.Bm25Config(avg_len=schema.words, language="english"))
        for start in range(0, len(chunks), 1000):
            batch = [
                edge.Point(
                    ids[at], {"dense": vectors[at % 4096], "text": words.embed_document(chunks[at].text)}, payloads[at]
                )
                for at in range(start, min(start + 1000, len(chunks)))
            ]
            shard.update(edge.UpdateOperation.upsert_points(batch))
        shard.flush()
        if len(chunks) > UNINDEXED:
            shard.optimize()
        used = cpu() - began
        shard.close()
    return used


def bare_loop(model: OnnxEmbedder, texts: list[str]) -> float:
    """Tokenise, sort, batch, run: what any program has to do, with nothing around it."""
    session, tokenizer = model._session, model._cut
    began = cpu()
    rows = sorted((one.ids for one in tokenizer.encode_batch_fast(texts)), key=len, reverse=True)
    while rows:
        size = max(1, min(64, 8192 // len(rows[0])))
        batch, rows = rows[:size], rows[size:]
        ids = np.zeros((len(batch), len(batch[0])), np.int32)
        mask = np.zeros_like(ids)
        for place, row in enumerate(batch):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1
        session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
    return cpu() - began


def embedded_by_us(model: OnnxEmbedder, texts: list[str]) -> float:
    began = cpu()
    model.embed_documents(texts)
    return cpu() - began


def peer(files: list[Path], tokenizer: str) -> dict[str, float]:
    python = PLACE / "bin" / "python"
    if not python.exists():
        venv.create(PLACE, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS], check=True)
    names = "\n".join(map(str, files))
    done = subprocess.run([python, "-c", PEER, tokenizer], input=names, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    if not lines:
        sys.exit(done.stderr[-3000:])
    found: dict[str, float] = json.loads(lines[-1].removeprefix("ANSWER"))
    return found


def without_embedding(folder: Path, model: OnnxEmbedder, given: argparse.Namespace) -> bool:
    """Each kind of file by itself, and all of them."""
    met = True
    for kind in (*KINDS, "all"):
        files = [path for path in sorted(folder.iterdir()) if kind in ("all", path.suffix[1:])]
        if not files:
            continue
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"\n{kind}: {len(files)} files, {size:.1f} MB")
        with tempfile.TemporaryDirectory() as name:
            for path in files:
                shutil.copyfile(path, Path(name) / path.name)
            shares = [compared(Path(name), files, model, given.peer) for _ in range(given.rounds)]
        if given.peer:
            whole = statistics.median(share[1] for share in shares)
            loaded = statistics.median(share[0] for share in shares)
            print(f"  {loaded:.1f}x its loading and splitting; {whole:.1f}x from files to the index", end="")
            print(f" (bar 5x: {'met' if whole >= 5 else 'MISSED'})" if kind == "all" else "")
            met = met and (kind != "all" or whole >= 5)
    return met


def compared(folder: Path, files: list[Path], model: OnnxEmbedder, with_peer: bool) -> tuple[float, float]:
    """How many times our CPU time LangChain takes: from files to chunks, and from files to the index."""
    parse, documents = parsed_by_us(files)
    cut, chunks = chunked_by_us(
        documents, Chunker(Ruler.of(model), ChunkSpec(), model.max_tokens)
    )  # knows no words yet
    whole, held = indexed_by_us(folder, model)
    engine = engine_alone(chunks)
    characters = sum(len(document.text) for document in documents)
    print(
        f"  ours       parse {parse:6.2f}  chunk {cut:5.2f}  whole sync {whole:6.2f} CPU s  "
        f"{len(chunks)} chunks of {characters} characters (engine alone {engine:.2f})"
    )
    assert held == len(chunks)
    if not with_peer:
        return 0.0, 0.0
    one = peer(files, model._files.tokenizer)
    load, split = one["parse"], one["split"]
    print(
        f"  LangChain  load  {load:6.2f}  split {split:5.2f}  with Chroma {load + split + one['chroma']:6.2f} CPU s  "
        f"{one['chunks']:.0f} chunks of {one['characters']:.0f} characters\n"
        f"             {(load + split + one['chroma']) / engine:.1f}x the engine alone "
        f"(Chroma {one['chroma']:.2f}, {one['made']:.2f} of it to be made; split by tokens {one['by tokens']:.2f})"
    )
    return (load + split) / (parse + cut), (load + split + one["chroma"]) / whole


def with_embedding(files: list[Path], model: OnnxEmbedder, chunker: Chunker, given: argparse.Namespace) -> bool:
    shares = []
    print(f"\nwith embedding, {len(files)} files")
    for _ in range(given.rounds):
        parse, documents = parsed_by_us(files)
        cut, chunks = chunked_by_us(documents, chunker)
        texts = [chunk.text for chunk in chunks]
        model.embed_documents(texts[:64])
        ours, bare = embedded_by_us(model, texts), bare_loop(model, texts)
        shares.append(bare / (parse + cut + ours))
        tokens = sum(chunk.tokens for chunk in chunks)
        print(
            f"  parse {parse:5.2f}  chunk {cut:5.2f}  embed {ours:6.2f}  bare loop {bare:6.2f} CPU s, "
            f"{tokens / ours:.0f} tokens a CPU s, share {shares[-1]:.2f}"
        )
    share = statistics.median(shares)
    print(f"  {share:.2f} of the bare loop ({'met' if share >= 0.9 else 'MISSED'}, bar 0.90)")
    return share >= 0.9


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--peer", action="store_true", help="measure LangChain and Chroma, too (installs them)")
    options.add_argument("--debian", action="store_true", help="manuals of Debian's packages, of every kind")
    options.add_argument("--docs", type=Path, help="a folder of documents")
    options.add_argument("--rounds", type=int, default=1)
    given = options.parse_args()
    model = open_embedder(EmbedderSettings(), Path())
    chunker = Chunker(Ruler.of(model), ChunkSpec(), model.max_tokens)
    print(f"{datetime.now(UTC):%Y-%m-%d}  {model.id}, {time.strftime('%H:%M')}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.docs:
            for number, path in enumerate(sorted(given.docs.rglob("*"))):
                if path.suffix[1:] in KINDS and path.is_file():
                    shutil.copyfile(path, folder / f"{number}{path.suffix}")
        elif given.debian:
            debian_pages(folder)
        else:
            own_pages(folder)
        quick = without_embedding(folder, model, given)
        files = sorted(folder.iterdir())
        few = files[:: max(len(files) // 30, 1)]
        return 0 if with_embedding(few, model, chunker, given) and quick else 1


if __name__ == "__main__":
    sys.exit(main())
