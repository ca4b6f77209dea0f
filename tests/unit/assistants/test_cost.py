"""What assistants cost before one is opened: nothing of LangChain, MCP or a web framework is imported."""

import subprocess
import sys

import pytest

HEAVY = {"langchain", "langchain_core", "langgraph", "langsmith", "pydantic", "mcp", "starlette", "httpx", "psycopg"}


def loaded(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import mainspring.protocols.assistants.openai, mainspring.protocols.assistants.rest",
        "import mainspring.protocols.mcp.rest, mainspring.protocols.mcp.stdio",
        "import mainspring.assistants.service, mainspring.assistants.declared, mainspring.assistants.evaluate",
        "import mainspring.testing",
    ],
)
def test_nothing_heavy_is_imported_before_an_assistant_is_opened(code):
    assert not loaded(code) & HEAVY


def test_langchain_is_imported_when_one_is():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from assistants_kit import assistant\n"
        "assert 'langchain' not in sys.modules\n"
        "assistant(['x'])"
    )
    assert loaded(code) >= {"langchain", "langgraph"}
    assert not loaded(code) & {"mcp", "starlette", "psycopg"}


def test_looking_for_the_savers_imports_none():
    code = (
        "from mainspring.choose.discover import adapters, is_installed\n"
        "assert all(is_installed(m) for a in adapters() if a.port == 'threads' for m in a.modules)"
    )
    assert not loaded(code) & (HEAVY - {"langgraph"}), "langgraph itself is an empty namespace"
