"""From files to chunks and vectors: CPU beside LangChain with Chroma, and beside the bare ONNX loop.

Bars: without embedding >= 5x LangChain's usual loaders, its splitter and Chroma (given the vectors); with embedding
>= 90 % of tokenising and running the model on the same chunks in the best batches, and nothing else.

    ./run bench ingest [--peer] [--docs FOLDER] [--files N] [--rounds N]

Without a folder the project's own pages are taken as Markdown, HTML, DOCX and PDF. ``--peer`` installs the peers.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from datetime import UTC, datetime
from pathlib import Path

import markdown
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from documents import docx, pdf  # noqa: E402
from mainspring.adapters.kreuzberg.parser import KreuzbergParser  # noqa: E402
from mainspring.adapters.kreuzberg.settings import KreuzbergSettings  # noqa: E402
from mainspring.adapters.onnxruntime.embedder import OnnxEmbedder, open_embedder  # noqa: E402
from mainspring.adapters.onnxruntime.settings import EmbedderSettings  # noqa: E402
from mainspring.ports.parser import Parsed  # noqa: E402
from mainspring.rag.chunk import Chunk, Chunker, ChunkSpec  # noqa: E402
from mainspring.rag.ruler import Ruler  # noqa: E402

PLACE = Path(__file__).resolve().parent / ".peers" / "ingest"
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
store = Chroma(embedding_function=Given(), persist_directory=tempfile.mkdtemp())
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
print("ANSWER" + json.dumps({"parse": parsed - began, "split": split - parsed, "chroma": stored - split,
    "by tokens": by_tokens - stored,
    "chunks": len(chunks), "characters": sum(len(d.page_content) for d in documents)}))
"""


def own_pages(folder: Path) -> list[Path]:
    """The project's own pages in four formats."""
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
            "html": f"<html><head><title>{page.stem}</title></head><body>"
            f"{markdown.markdown(text, extensions=['tables', 'fenced_code'])}</body></html>".encode(),
            "docx": docx(blocks, page.stem),
            "pdf": pdf([lines[start : start + 55] for start in range(0, len(lines), 55)], page.stem),
        }
        for ending, data in made.items():
            (folder / f"{number}.{ending}").write_bytes(data)
    return sorted(folder.iterdir())


def cpu() -> float:
    """Processor time of this process and of the children that have ended, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def parsed_by_us(files: list[Path], way: str) -> tuple[float, list[Parsed]]:
    began = cpu()
    parser = KreuzbergParser(KreuzbergSettings(workers=1, pdf="fast" if way == "fast" else "structured"))
    found = [parser.parse(path, path.name) for path in files]
    parser.close()
    return cpu() - began, [one for one in found if isinstance(one, Parsed)]


def chunked_by_us(documents: list[Parsed], chunker: Chunker) -> tuple[float, list[Chunk]]:
    began = cpu()
    chunks = [chunk for document in documents for chunk in chunker.chunks(document)]
    return cpu() - began, chunks


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


def without_embedding(files: list[Path], model: OnnxEmbedder, given: argparse.Namespace) -> None:
    print(f"\nwithout embedding, {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")
    totals: dict[str, list[float]] = {"structured": [], "fast": []}
    for _ in range(given.rounds):
        for way, times in totals.items():
            parse, documents = parsed_by_us(files, way)
            chunker = Chunker(Ruler.of(model), ChunkSpec(), model.max_tokens)  # a new one knows no words yet
            cut, chunks = chunked_by_us(documents, chunker)
            size = sum(len(document.text) for document in documents)
            times.append(parse + cut)
            print(f"  {way:<10} parse {parse:6.2f}  chunk {cut:6.2f} CPU s  {len(chunks)} chunks of {size} characters")
    if not given.peer:
        return
    theirs = [peer(files, model._files.tokenizer) for _ in range(given.rounds)]
    for one in theirs:
        print(
            f"  LangChain  load {one['parse']:6.2f}  split {one['split']:5.2f} (by tokens {one['by tokens']:.2f})  "
            f"Chroma {one['chroma']:6.2f} CPU s  {one['chunks']:.0f} chunks of {one['characters']:.0f} characters"
        )
    for way, times in totals.items():
        pairs = list(zip(theirs, times, strict=True))
        loaded = statistics.median((one["parse"] + one["split"]) / ours for one, ours in pairs)
        whole = statistics.median((one["parse"] + one["split"] + one["chroma"]) / ours for one, ours in pairs)
        alike = statistics.median((one["parse"] + one["by tokens"] + one["chroma"]) / ours for one, ours in pairs)
        print(
            f"  {way}: {loaded:.1f}x its loading and splitting, {whole:.1f}x with Chroma "
            f"({'met' if whole >= 5 else 'MISSED'}, bar 5x), {alike:.1f}x when its chunks keep a token limit as ours do"
        )


def with_embedding(files: list[Path], model: OnnxEmbedder, chunker: Chunker, given: argparse.Namespace) -> bool:
    shares = []
    print(f"\nwith embedding, {len(files)} files")
    for _ in range(given.rounds):
        parse, documents = parsed_by_us(files, "structured")
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
    options.add_argument("--docs", type=Path, help="a folder of documents")
    options.add_argument("--files", type=int, default=100_000, help="most files of it")
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    model = open_embedder(EmbedderSettings(), Path())
    chunker = Chunker(Ruler.of(model), ChunkSpec(), model.max_tokens)
    print(f"{datetime.now(UTC):%Y-%m-%d}  {model.id}, {time.strftime('%H:%M')}")
    with tempfile.TemporaryDirectory() as folder:
        endings = {".pdf", ".html", ".docx", ".md", ".txt"}
        found = own_pages(Path(folder)) if given.docs is None else sorted(given.docs.rglob("*"))
        files = [path for path in found if path.suffix in endings and path.is_file()][: given.files]
        without_embedding(files, model, given)
        few = files[:: max(len(files) // 60, 1)]
        return 0 if with_embedding(few, model, chunker, given) else 1


if __name__ == "__main__":
    sys.exit(main())
