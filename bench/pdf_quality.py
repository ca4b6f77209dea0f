"""Both ways to read a PDF, judged by what is found: documents printed by Chromium, and the headings of real manuals.

    ./run bench pdf_quality [--data FOLDER] [--prints FOLDER] [--manuals FOLDER]

``--data`` has the collection product-docs as `retrieval_quality` wants it: its documents are printed to PDF, read by
each way, cut, and asked the collection's questions. ``--manuals`` is a folder of PDFs with bookmarks, whose titles are
what a heading should be: reading them once with the bookmarks hidden shows what the size of letters alone finds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import markdown
import pypdfium2
from playwright.sync_api import sync_playwright

from mainspring.adapters.kreuzberg import extract
from mainspring.adapters.kreuzberg.headings import Mark, _words, by_bookmarks, by_size
from mainspring.adapters.onnxruntime.embedder import open_embedder
from mainspring.adapters.onnxruntime.settings import EmbedderSettings
from mainspring.metrics.retrieval import ndcg
from mainspring.ports.parser import Parsed
from mainspring.rag.chunk import Chunker, ChunkSpec
from mainspring.rag.ruler import Ruler

sys.path.insert(0, str(Path(__file__).resolve().parent))
from retrieval_quality import Cached, Index, legs

WAYS = ("structured", "fast")


def printed(data: Path, folder: Path) -> None:
    """Each document as a PDF with its title, unless it is there already."""
    with gzip.open(data / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        for number, entry in enumerate(entries):
            path = folder / f"{number:04}.pdf"
            if path.exists():
                continue
            body = markdown.markdown(entry["text"], extensions=["tables", "fenced_code"])
            page.set_content(f"<title>{entry.get('title', '')}</title>{body}")
            page.pdf(path=str(path), format="A4", outline=False)
        browser.close()


def read(path: Path, way: str) -> Parsed | None:
    found = extract.extracted(path.read_bytes(), "pdf", way == "fast", 1 << 24)
    return found if isinstance(found, Parsed) else None


def retrieval(data: Path, folder: Path) -> None:
    model = open_embedder(EmbedderSettings(), Path())
    chunker = Chunker(Ruler.of(model), ChunkSpec(), model.max_tokens)
    with gzip.open(data / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        names = [json.loads(line)["_id"] for line in file]
    queries = [json.loads(line) for line in (data / "queries.jsonl").read_text("utf-8").splitlines()]
    gains: dict[str, dict[str, float]] = defaultdict(dict)
    for line in (data / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, gain = line.split("\t")
        gains[query][document] = float(gain)
    for way in WAYS:
        began = time.process_time()
        found = [(names[int(path.stem)], read(path, way)) for path in sorted(folder.glob("*.pdf"))]
        corpus = [(name, one) for name, one in found if one is not None]
        used = time.process_time() - began
        index = Index.of(corpus, chunker, Cached(model, None))
        scores = defaultdict(list)
        for query in queries:
            for leg, rows in legs(index, query["text"], model.embed_query(query["text"])).items():
                ranked = list(dict.fromkeys(index.documents[row] for row in rows))
                scores[leg].append(ndcg(ranked, gains.get(query["_id"], {}), 10))
        told = "  ".join(
            f"{leg} {statistics.mean(one for one in found if one is not None):.3f}" for leg, found in scores.items()
        )
        print(
            f"{way:<10} {len(corpus)} printed documents, {used:.1f} CPU s, {len(index.chunks)} chunks, nDCG@10: {told}"
        )


def headings(manuals: Path) -> None:
    """Of the headings that are found, how many are titles of the outline; and how many of those are found."""
    for path in sorted(manuals.glob("*.pdf")):
        data = path.read_bytes()
        document = pypdfium2.PdfDocument(data)
        bookmarks = extract._bookmarks(document)
        pages, lines = extract._pages(document, sized=True)
        text = "\n\n".join(pages)
        wanted = {_words(one.title) for one in bookmarks}
        if not wanted:
            continue

        def said(marks: list[Mark] | tuple[Mark, ...], text: str = text) -> list[str]:
            return [_words(text[mark.start : mark.end]) for mark in marks]

        structured = read(path, "structured")
        lines_of = [] if structured is None else structured.text.splitlines()
        found = {
            "structured": [_words(line.lstrip("# ").replace("\\", "")) for line in lines_of if line.startswith("#")],
            "fast": said(by_bookmarks(lines, bookmarks)),
            "fast, bookmarks hidden": said(tuple(by_size(lines))),
        }
        told = ", ".join(
            f"{way}: {len(one)} of which {sum(word in wanted for word in one) / max(len(one), 1):.0%} are titles, "
            f"{len(wanted & set(one)) / len(wanted):.0%} of the titles"
            for way, one in found.items()
        )
        print(f"{path.name}, {len(pages)} pages, {len(bookmarks)} titles; {told}")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="the folder of the collection product-docs")
    options.add_argument("--prints", type=Path, help="where the printed documents are kept")
    options.add_argument("--manuals", type=Path, help="a folder of PDFs with bookmarks")
    given = options.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}")
    if given.manuals:
        headings(given.manuals)
    if given.data:
        with tempfile.TemporaryDirectory() as folder:
            place = given.prints or Path(folder)
            place.mkdir(parents=True, exist_ok=True)
            printed(given.data, place)
            retrieval(given.data, place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
