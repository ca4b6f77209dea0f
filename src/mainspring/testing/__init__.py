"""What users import in their tests: `open_project`, `ScriptedChat`; beside it the contract suites that adapters run."""

from mainspring.lazy import lazy
from mainspring.testing.project import Project, open_project
from mainspring.testing.script import Call, Script

__all__ = ["Call", "Project", "Script", "ScriptedChat", "open_project"]

_chat = lazy("mainspring.testing.chat")


def __getattr__(name: str) -> object:
    if name == "ScriptedChat":
        return _chat.ScriptedChat
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
