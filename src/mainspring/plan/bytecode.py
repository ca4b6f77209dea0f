"""Code objects in a canonical form that comments, layout, docstrings and names of locals do not change.

Tried on CPython 3.11 to 3.13: unspecialised `dis`, bookkeeping instructions dropped, fused pairs split, jumps and
exception tables by instruction number, locals and cells by first use.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from weakref import WeakKeyDictionary

from mainspring.plan.encoding import digest, encode

__all__ = ["Chain", "Import", "Parsed", "first_uses", "parse"]

_DROPPED = frozenset(
    {
        "CACHE",
        "RESUME",
        "NOP",
        "EXTENDED_ARG",
        "PRECALL",
        "COPY_FREE_VARS",
        "MAKE_CELL",
        "NOT_TAKEN",
        "SETUP_ANNOTATIONS",
    }
)
_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_CONSTANTS = frozenset(dis.hasconst)


@dataclass(frozen=True, slots=True)
class Chain:
    """A global that is read, and the attributes read from it at once: ``np.linalg.norm``."""

    root: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Import:
    """An import in a body."""

    module: str
    level: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A code object's canonical digest, and what it reads from outside, nested code included."""

    digest: str
    chains: tuple[Chain, ...]
    imports: tuple[Import, ...]


@dataclass(slots=True)
class _Op:
    name: str
    argument: object
    raw: dis.Instruction


_parsed: WeakKeyDictionary[CodeType, Parsed] = WeakKeyDictionary()


def parse(code: CodeType) -> Parsed:
    """The canonical form of a code object; computed once for each."""
    found = _parsed.get(code)
    if found is None:
        found = _parsed[code] = _parse(code)
    return found


def _parse(code: CodeType) -> Parsed:
    operations = list(_operations(code))
    number_at = _numbers(code, operations)
    names = _Names(code)
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    body = []
    for position, operation in enumerate(_in_inner_order(operations)):
        body.append((operation.name, _argument(operation, names, number_at, position)))
    table = [
        (number_at(entry.start), number_at(entry.end), number_at(entry.target), entry.depth, entry.lasti)
        for entry in dis._parse_exception_table(code)  # type: ignore[attr-defined]
    ]
    parameters = code.co_varnames[: names.parameters]
    head = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~0x10, parameters)
    nested = [parse(constant) for constant in inner]
    return Parsed(
        digest(encode((head, body, table))),
        tuple(dict.fromkeys([*_chains(operations), *(chain for part in nested for chain in part.chains)])),
        tuple(dict.fromkeys([*_imports(operations), *(item for part in nested for item in part.imports)])),
    )


def _operations(code: CodeType) -> Iterator[_Op]:
    for instruction in dis.get_instructions(code, adaptive=False):
        if instruction.opname in _DROPPED:
            continue
        if isinstance(instruction.argval, tuple) and instruction.opname.count("_FAST") == 2:
            first, second = instruction.opname.split("_FAST_")
            yield _Op(f"{first}_FAST", instruction.argval[0], instruction)
            yield _Op(second if second.endswith("_FAST") else f"{second}_FAST", instruction.argval[1], instruction)
        elif instruction.opname == "KW_NAMES":  # 3.11 and 3.12 leave the names of keyword arguments unresolved
            yield _Op(instruction.opname, code.co_consts[instruction.arg or 0], instruction)
        else:
            yield _Op(instruction.opname, instruction.argval, instruction)


class _Numbers:
    def __init__(self, code: CodeType, operations: list[_Op]) -> None:
        self._at: dict[int, int] = {}
        waiting: list[int] = []
        kept = {operation.raw.offset: index for index, operation in reversed(list(enumerate(operations)))}
        for offset in range(0, len(code.co_code) + 2, 2):
            waiting.append(offset)
            if offset in kept:
                self._at.update(dict.fromkeys(waiting, kept[offset]))
                waiting = []
        self._at.update(dict.fromkeys(waiting, len(operations)))

    def __call__(self, offset: int) -> int:
        return self._at[offset]


_numbers = _Numbers


class _Names:
    """Locals and cells by first use; parameters by name."""

    def __init__(self, code: CodeType) -> None:
        flags = code.co_flags
        self.parameters = code.co_argcount + code.co_kwonlyargcount + bool(flags & 0x04) + bool(flags & 0x08)
        self._order: dict[str, str] = {name: f"={name}" for name in code.co_varnames[: self.parameters]}

    def __call__(self, name: str) -> str:
        return self._order.setdefault(name, f"%{len(self._order)}")


def _argument(operation: _Op, names: _Names, number_at: _Numbers, position: int) -> object:
    raw = operation.raw
    if raw.opcode in _CONSTANTS:
        return _constant(operation.argument)
    if raw.opcode in dis.haslocal or raw.opcode in dis.hasfree:
        return names(str(operation.argument))
    if raw.opcode in dis.hasjrel or raw.opcode in dis.hasjabs:
        return number_at(int(raw.argval))
    if raw.opcode in dis.hasname:
        # The low bit says whether a NULL is pushed too; the rest of the number is the name's place in a table.
        low = (raw.arg or 0) & 1 if raw.opname in ("LOAD_GLOBAL", "LOAD_ATTR") and raw.arg is not None else 0
        return (str(operation.argument), low if raw.opname == "LOAD_GLOBAL" else raw.opname)
    return raw.arg


def _constant(value: object) -> object:
    if isinstance(value, CodeType):
        return ("code", parse(value).digest)
    return value


def _in_inner_order(operations: list[_Op]) -> list[_Op]:
    """Order the cells of each closure tuple as the inner function first uses them, not by their names."""
    ordered = list(operations)
    for index, operation in enumerate(ordered):
        if operation.name != "BUILD_TUPLE":
            continue
        count = int(operation.raw.arg or 0)
        cells = ordered[index - count : index]
        following = ordered[index + 1 : index + 2]
        inner = following[0].argument if following and following[0].raw.opcode in _CONSTANTS else None
        if count and isinstance(inner, CodeType) and all(cell.name == "LOAD_CLOSURE" for cell in cells):
            first = {name: at for at, name in reversed(list(enumerate(first_uses(inner))))}
            ordered[index - count : index] = sorted(cells, key=lambda cell: first.get(str(cell.argument), 1 << 30))
    return ordered


def first_uses(code: CodeType) -> list[str]:
    """Locals and cells in the order in which the code uses them, repeats included."""
    return [
        str(op.argument) for op in _operations(code) if op.raw.opcode in dis.hasfree or op.raw.opcode in dis.haslocal
    ]


def _chains(operations: list[_Op]) -> Iterator[Chain]:
    for index, operation in enumerate(operations):
        if operation.name in _GLOBALS:
            attributes = []
            for following in operations[index + 1 :]:
                if following.name not in _ATTRIBUTES:
                    break
                attributes.append(str(following.argument))
            yield Chain(str(operation.argument), tuple(attributes))


def _imports(operations: list[_Op]) -> Iterator[Import]:
    for index, operation in enumerate(operations):
        if operation.name == "IMPORT_NAME":
            level, names = operations[index - 2].argument, operations[index - 1].argument
            yield Import(
                str(operation.argument),
                level if isinstance(level, int) else 0,
                names if isinstance(names, tuple) else (),
            )
