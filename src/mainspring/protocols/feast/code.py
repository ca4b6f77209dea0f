"""Laying out generated Python as a formatter would, and giving variables names that nothing else has."""

from __future__ import annotations

import builtins
import itertools
import json
import keyword
import re
from collections.abc import Iterable, Sequence

__all__ = ["Names", "called", "layout", "listed", "quoted"]

_WIDTH = 120
_OWN = {"app", "App", "Entity", "Field", "Record", "last", "pl", "datetime", "date", "Decimal", "rows", "made"}
_STANDARD = (("datetime", "date"), ("datetime", "datetime"), ("decimal", "Decimal"))
_OURS = ("App", "Entity", "Field", "Record", "last")


def called(head: str, arguments: Sequence[str], indent: str = "") -> str:
    """A call on one line where it fits, else an argument a line."""
    line = f"{head}({', '.join(arguments)})"
    if len(indent) + len(line) <= _WIDTH and "\n" not in line:
        return line
    inner = "".join(f"{indent}    {argument},\n" for argument in arguments)
    return f"{head}(\n{inner}{indent})"


def quoted(text: str) -> str:
    """A text as a literal, in the quotation marks that a formatter would choose."""
    double = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")
    if text.count('"') <= text.count("'"):
        return double
    return "'" + double[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"


def listed(items: Sequence[str], room: int) -> str:
    """A list on one line where it has no more than `room` characters, else an item a line, one level in."""
    line = f"[{', '.join(items)}]"
    return line if len(line) <= room else "[\n" + "".join(f"        {item},\n" for item in items) + "    ]"


def layout(head: str, imports: Iterable[str], blocks: Sequence[str]) -> str:
    """A module: its docstring, its imports in groups, and its blocks, with the blank lines between them."""
    head = '"""' + re.sub(r"[^\w .,:;()/-]", "_", head) + '"""'
    text = blocks[0]
    for before, after in itertools.pairwise(blocks):
        wide = any(block.startswith(("class ", "def ", "@")) for block in (before, after))
        text += ("\n\n\n" if wide else "\n\n") + after
    lines = list(imports)
    for module, name in _STANDARD:
        if re.search(rf"(: |\()(list\[)?{name}\b(?!\.)", text):
            lines.append(f"from {module} import {name}")
    ours = [name for name in _OURS if f"{name}(" in text or f"({name})" in text]
    lines.append(f"from mainspring import {', '.join(ours)}")
    return f"{head}\n\n{_grouped(lines)}\n\n{text}\n"


def _grouped(lines: Iterable[str]) -> str:
    """Import lines in order: the standard library's, then those of what is installed."""
    groups: list[list[str]] = [[], []]
    names: dict[str, set[str]] = {}
    for line in set(lines):
        words = line.split()
        if words[0] == "import":
            groups[_group(words[1])].append(line)
        else:
            names.setdefault(words[1], set()).update(name.strip() for name in line.partition(" import ")[2].split(","))
    for group in groups:
        group.sort()
    for module in sorted(names):
        groups[_group(module)].append(f"from {module} import {', '.join(sorted(names[module], key=_order))}")
    return "\n\n".join("\n".join(group) for group in groups if group)


def _group(module: str) -> int:
    root = module.partition(".")[0]
    return int(root in ("mainspring", "numpy", "polars"))


def _order(name: str) -> tuple[int, str]:
    """Constants, classes, functions: as an import's names are sorted."""
    word = name.split()[0]
    return (0 if word.isupper() and len(word) > 1 else 1 if word[:1].isupper() else 2), name


class Names:
    """The variables of a module, each given once.

    Args:
        taken: names that are bound already, besides those of the imports.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {*taken, *_OWN, *dir(builtins)}

    def take(self, wanted: str, kind: str) -> str:
        """A free name like the one that is wanted; where that is taken, with its kind or a number behind it."""
        name = re.sub(r"\W", "_", wanted)
        name = name if kind == "copy" else name.lstrip("_")
        name = f"{kind}_{name}" if not name.isidentifier() else name
        tries = [name, f"{name}_{kind}", *(f"{name}_{number}" for number in range(2, len(self._taken) + 3))]
        found = next(each for each in tries if each not in self._taken and not keyword.iskeyword(each))
        self._taken.add(found)
        return found
