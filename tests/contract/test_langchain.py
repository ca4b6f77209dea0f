"""LangChain's own contract for chat models, embeddings, vector stores and retrievers, kept by our classes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mainspring.declare.identity import Identity
from mainspring.langchain import MainspringRetriever
from mainspring.testing.library import Library, Page

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_standard_suites():
    """In a process of its own: they need pytest plugins that our tests are run without."""
    pytest.importorskip("langchain_tests")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            str(TESTS / "langchain" / "suites.py"),
            "-q",
            "-c",
            os.devnull,
            "--rootdir",
            str(TESTS / "langchain"),
            "-p",
            "no:cacheprovider",
            "--benchmark-disable",
            "-o",
            "asyncio_mode=auto",
            "--disable-socket",
            "--allow-unix-socket",
            "-rfE",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 90, done.stdout[-500:]


def test_a_retriever_has_the_rights_of_its_caller():
    library = Library([Page("a.md", "goods for all"), Page("b.md", "goods of staff", principals=("group:staff",))])
    assert [one.metadata["uri"] for one in MainspringRetriever(searcher=library).invoke("goods")] == ["a.md"]
    staff = MainspringRetriever(searcher=library, caller=Identity("ada", ("staff",)))
    assert {one.metadata["uri"] for one in staff.invoke("goods")} == {"a.md", "b.md"}
    (first, *_) = staff.invoke("goods", k=1)
    assert first.page_content == "goods for all"
    assert first.metadata["span"] == [0, 13]
