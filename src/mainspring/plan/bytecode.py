"""Code objects in a canonical form that comments, layout, docstrings and names of locals do not change.

The instructions, without specialisation and bookkeeping, are written in the order in which they can be reached. The
compiler's choices that depend on line numbers (which jumps it threads through others, where blocks lie, what it leaves
unreachable, which pairs it fuses) vanish thereby. Tried on CPython 3.11, 3.12 and 3.13.
"""

from __future__ import annotations

import dis
import itertools
import re
from collections.abc import Iterator
from types import CodeType
from typing import TypeAlias
from weakref import WeakKeyDictionary

import msgspec

from mainspring.plan.encoding import digest, encode

__all__ = ["Chain", "Import", "Parsed", "parse"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DROPPED = _words("CACHE RESUME NOP EXTENDED_ARG PRECALL COPY_FREE_VARS MAKE_CELL NOT_TAKEN SETUP_ANNOTATIONS")
_JUMPS = _words("JUMP_FORWARD JUMP_BACKWARD JUMP_BACKWARD_NO_INTERRUPT JUMP_ABSOLUTE")
_ENDS = _words("RETURN_VALUE RAISE_VARARGS RERAISE INTERPRETER_EXIT")
_GLOBALS = _words("LOAD_GLOBAL LOAD_NAME LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTES = _words("LOAD_ATTR LOAD_METHOD")
_CELLS = _words("LOAD_CLOSURE LOAD_FAST")  # 3.13 loads the cells of a closure as it does locals
_STORES = _words("STORE_FAST STORE_NAME STORE_DEREF STORE_GLOBAL")
_LOADS = _words("LOAD_FAST LOAD_NAME")
_TAKING = _words("STORE_FAST POP_TOP")
_QUIET = _words("LOAD_CONST LOAD_CLOSURE STORE_FAST POP_TOP PUSH_NULL COPY SWAP")
"""Instructions that cannot raise: which handler covers them says nothing."""

_CONSTANT, _LOCAL, _JUMP, _NAMED = (
    frozenset(dis.opname[number].replace("_FORWARD_IF", "_IF").replace("_BACKWARD_IF", "_IF") for number in numbers)
    for numbers in (dis.hasconst, [*dis.haslocal, *dis.hasfree], [*dis.hasjrel, *dis.hasjabs], dis.hasname)
)
_OPPOSITES = {"POP_JUMP_IF_TRUE": "POP_JUMP_IF_FALSE", "POP_JUMP_IF_NOT_NONE": "POP_JUMP_IF_NONE"}
"""Branches that are written as their opposite, with their two ways exchanged."""

_KEEPING = {"JUMP_IF_FALSE_OR_POP": "POP_JUMP_IF_FALSE", "JUMP_IF_TRUE_OR_POP": "POP_JUMP_IF_TRUE"}
"""Branches that keep what they test when they jump, and those that never do."""

_LONGEST_ENDING = 10  # compilers copy up to four instructions, which are more before pairs are split
_Place: TypeAlias = tuple[int, int]
"""An instruction, and which copy of it when it is written more than once."""

_CLASS_FACTS = _words("__doc__ __module__ __qualname__ __firstlineno__ __static_attributes__")
_LOW_BITS = {"LOAD_GLOBAL": 1, "LOAD_SUPER_ATTR": 3}  # what these bits of the argument say is not in the name
_FLAGS = 0x3AF
"""Optimised, new locals, variable arguments, generator, coroutine; not whether nested or with a docstring."""


class Chain(msgspec.Struct, frozen=True):
    """A global that is read, and the attributes read from it at once: ``np.linalg.norm``."""

    root: str
    attributes: tuple[str, ...]


class Import(msgspec.Struct, frozen=True):
    """A name bound by an import in a body.

    Attributes:
        module: what is imported, ``a.b``; relative when `level` is above 0.
        level: the number of leading dots.
        name: what is taken from it; None binds the module itself.
        whole: a module without `name` is bound by its full path (``import a.b as x``), not by its first part.
        uses: the attributes read from what is bound, for each read; ``()`` where it is used otherwise.
    """

    module: str
    level: int
    name: str | None
    whole: bool
    uses: tuple[tuple[str, ...], ...]


class Parsed(msgspec.Struct, frozen=True):
    """A code object's canonical digest, and what it reads from outside, nested code included.

    Attributes:
        digest: of the canonical form, nested code included.
        chains: globals with the attributes read from them.
        imports: imports in the body.
        free: the free variables, in the order of their first use.
    """

    digest: str
    chains: tuple[Chain, ...]
    imports: tuple[Import, ...]
    free: tuple[str, ...]


class _Op(msgspec.Struct):
    name: str
    argument: object  # a name, a constant, or the offset of a jump's target
    number: int  # the raw argument
    offset: int
    handler: object = None


# Equal code objects have equal bytecode, so that their first lines, which count for equality, do no harm here.
_parsed: WeakKeyDictionary[CodeType, Parsed] = WeakKeyDictionary()


def parse(code: CodeType) -> Parsed:
    """The canonical form of a code object; computed once for each."""
    found = _parsed.get(code)
    if found is None:
        found = _parsed[code] = _parse(code)
    return found


def _parse(code: CodeType) -> Parsed:
    operations = _in_inner_order(_without_swaps(_without_class_facts(list(_operations(code)))), code)
    written, names = _written(operations, code)
    count = _parameters(code)
    head = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS)
    nested = [parse(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    free = set(code.co_freevars)
    return Parsed(
        digest(encode(head), encode(code.co_varnames[:count]), written),
        tuple(dict.fromkeys([*_chains(operations), *(chain for part in nested for chain in part.chains)])),
        tuple(dict.fromkeys([*_imports(operations, code), *(item for part in nested for item in part.imports)])),
        tuple([name for name in names if name in free] + sorted(free.difference(names))),
    )


def _parameters(code: CodeType) -> int:
    return code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)


# -- reading instructions ----------------------------------------------------------------------------------------------


def _operations(code: CodeType) -> Iterator[_Op]:
    constants = code.co_consts
    for raw in dis.get_instructions(code, adaptive=False):
        name, number, offset = raw.opname, raw.arg or 0, raw.offset
        if name in _DROPPED:
            continue
        if name.count("_FAST") == 2 and isinstance(raw.argval, tuple):  # two in one, as 3.13 fuses them line by line
            first, second = re.findall(r"(?:LOAD|STORE)_FAST", name)
            yield _Op(first, raw.argval[0], 0, offset)
            yield _Op(second, raw.argval[1], 0, offset)
        elif name == "LOAD_FAST_CHECK":  # whether a local may be unbound is found block by block
            yield _Op("LOAD_FAST", raw.argval, 0, offset)
        elif name == "RETURN_CONST":
            yield _Op("LOAD_CONST", constants[number], 0, offset)
            yield _Op("RETURN_VALUE", None, 0, offset)
        elif name == "KW_NAMES":  # 3.11 leaves the names of keyword arguments unresolved
            yield _Op(name, constants[number], 0, offset)
        else:
            if name.startswith("POP_JUMP_"):  # 3.11 says in which direction
                name = name.replace("_FORWARD_IF", "_IF").replace("_BACKWARD_IF", "_IF")
            yield _Op(name, raw.argval, number, offset)


def _without_class_facts(operations: list[_Op]) -> list[_Op]:
    """Leave out what a class body stores of its docstring, its names and its lines."""
    kept: list[_Op] = []
    for operation in operations:
        if operation.name == "STORE_NAME" and operation.argument in _CLASS_FACTS and kept[-1].name.startswith("LOAD_"):
            kept.pop()
        else:
            kept.append(operation)
    return kept


def _without_swaps(operations: list[_Op]) -> list[_Op]:
    """Store in exchanged order instead of exchanging first, which the compiler does for names on one line only.

    Likewise a value that is stored over at once is dropped instead.
    """
    kept = list(operations)
    for index in range(len(kept) - 1, -1, -1):
        operation = kept[index]
        stores = list(itertools.takewhile(lambda one: one.name in _TAKING, kept[index + 1 :]))
        count = operation.number
        names = {store.argument for store in stores[:count]}
        if operation.name == "STORE_FAST" and any(store.argument == operation.argument for store in stores):
            kept[index] = _Op("POP_TOP", None, 0, operation.offset)
        elif (
            operation.name == "SWAP" and len(names) == count and all(one.name == "STORE_FAST" for one in stores[:count])
        ):
            first, last = stores[0], stores[count - 1]
            first.argument, last.argument = last.argument, first.argument
            del kept[index]
    return kept


def _in_inner_order(operations: list[_Op], code: CodeType) -> list[_Op]:
    """Order the cells of each closure tuple as the inner code first uses them, not by their names."""
    cells = {*code.co_cellvars, *code.co_freevars}
    for index, operation in enumerate(operations[:-1]):
        inner = operations[index + 1].argument
        if operation.name != "BUILD_TUPLE" or not isinstance(inner, CodeType) or operation.number > index:
            continue
        start = index - operation.number
        loads = operations[start:index]
        if {str(load.argument) for load in loads} <= cells and all(load.name in _CELLS for load in loads):
            first = {name: at for at, name in enumerate(parse(inner).free)}
            ordered = sorted((load.argument for load in loads), key=lambda name: first.get(str(name), len(first)))
            for load, name in zip(loads, ordered, strict=True):
                load.argument = name
    return operations


# -- writing them in the order in which they are reached ---------------------------------------------------------------


class _Flow:
    """Where control goes: by jumps, by falling through, and by exceptions."""

    def __init__(self, operations: list[_Op], code: CodeType) -> None:
        self.operations = operations
        self._index: dict[int, int] = {}
        for index, operation in enumerate(operations):
            self._index.setdefault(operation.offset, index)
        self._end = len(code.co_code)
        self._copies = 0
        self._left: dict[int, int] = {}
        self._add_handlers(code)
        self._thread()

    def _add_handlers(self, code: CodeType) -> None:
        for entry in dis._parse_exception_table(code):  # type: ignore[attr-defined]
            handler = (entry.target, entry.depth, entry.lasti)
            # A pair that was split has two instructions at one offset.
            for offset in range(entry.start, entry.end, 2):
                index = self._index.get(offset)
                while index is not None and index < len(self.operations) and self.operations[index].offset == offset:
                    self.operations[index].handler = None if self.operations[index].name in _QUIET else handler
                    index += 1

    def _thread(self) -> None:
        """Jumps that keep a value for another test of it, which 3.11 threads through it when on one line."""
        for operation in reversed(self.operations):
            while operation.name in _KEEPING:
                index = self.at(_offset(operation.argument))
                test = self.operations[index]
                told = _KEEPING.get(test.name, test.name)
                if told not in _KEEPING.values():
                    break
                same = told == _KEEPING[operation.name]
                if not (same and test.name in _KEEPING):
                    operation.name = _KEEPING[operation.name]
                operation.argument = test.argument if same else self.operations[index + 1].offset

    def at(self, offset: int) -> int:
        """The instruction that runs when control comes to an offset: unconditional jumps are followed."""
        seen: set[int] = set()
        index = self._next(offset)
        while index < len(self.operations) and self.operations[index].name in _JUMPS and index not in seen:
            seen.add(index)
            index = self._next(_offset(self.operations[index].argument))
        return index

    def _next(self, offset: int) -> int:
        while offset < self._end:
            if offset in self._index:
                return self._index[offset]
            offset += 2
        return len(self.operations)

    def ways(self, index: int) -> tuple[int | None, int | None]:
        """The instruction that runs after one (None: the function ends), and the other one that may (by a jump)."""
        operation = self.operations[index]
        if operation.name in _ENDS or index + 1 >= len(self.operations):
            return None, None
        following = self.operations[index + 1]
        after = self.at(_offset(following.argument)) if following.name in _JUMPS else index + 1
        if operation.name not in _JUMP:
            return after, None
        other = self.at(_offset(operation.argument))
        return (other, after) if operation.name in _OPPOSITES else (after, other)

    def order(self) -> tuple[list[tuple[int, _Place | None, _Place | None]], dict[_Place, int]]:
        """The instructions that can be reached, each with the place after it and the other that may follow; numbers.

        Short endings are written wherever control comes to them, because compilers copy them or not by their lines.
        """
        numbers: dict[_Place, int] = {}
        order: list[tuple[int, _Place | None, _Place | None]] = []
        waiting = [self._place(self.at(0))]
        while waiting:
            place: _Place | None = waiting.pop()
            while place is not None and place not in numbers:
                index = place[0]
                numbers[place] = len(order)
                handler = self.operations[index].handler
                if isinstance(handler, tuple):
                    waiting.append((self.at(handler[0]), 0))
                after, other = (None if way is None else self._place(way) for way in self.ways(index))
                if other is not None:
                    waiting.append(other)
                order.append((index, after, other))
                place = after
        return order, numbers

    def _place(self, index: int) -> _Place:
        if not self._is_ending(index):
            return (index, 0)
        self._copies += 1
        return (index, self._copies)

    def _is_ending(self, index: int) -> bool:
        """Whether a few instructions without a branch come here, and the function ends."""
        path: list[int] = []
        at: int | None = index
        while at is not None and at not in self._left:
            self._left[at] = _LONGEST_ENDING  # an endless loop comes here again
            if self.operations[at].name in _JUMP:
                break
            path.append(at)
            at = self.ways(at)[0]
        left = 0 if at is None else self._left[at]
        for at in reversed(path):
            left = self._left[at] = min(left + 1, _LONGEST_ENDING)
        return self._left[index] < _LONGEST_ENDING


def _offset(argument: object) -> int:
    return argument if isinstance(argument, int) else 0


def _written(operations: list[_Op], code: CodeType) -> tuple[bytes, list[str]]:
    """The instructions as bytes, and the names of locals and cells in the order of their first use."""
    flow = _Flow(operations, code)
    order, numbers = flow.order()
    names: dict[str, str] = {name: f"={name}" for name in code.co_varnames[: _parameters(code)]}
    used: dict[str, None] = {}
    parts: list[bytes] = []
    handler: object = None
    for number, (index, after, other) in enumerate(order):
        operation = operations[index]
        if operation.handler != handler and operation.name not in _QUIET:
            handler = operation.handler
            where = (numbers[(flow.at(handler[0]), 0)], *handler[1:]) if isinstance(handler, tuple) else ()
            parts.append(f"\ntry {where}".encode())
        parts.append(f"\n{_OPPOSITES.get(operation.name, operation.name)} ".encode())
        if operation.name in _LOCAL:
            name = str(operation.argument)
            used[name] = None
            parts.append(names.setdefault(name, f"%{len(names)}").encode())
        else:
            parts.append(_argument(operation) if other is None else b"%d" % numbers[other])
        if after is not None and numbers[after] != number + 1:
            parts.append(b"\ngoto %d" % numbers[after])
    return b"".join(parts), [*used]


def _argument(operation: _Op) -> bytes:
    if operation.name in _CONSTANT:
        value = operation.argument
        return f"code {parse(value).digest}".encode() if isinstance(value, CodeType) else encode(value)
    if operation.name in _NAMED:
        return f"{operation.argument} {operation.number & _LOW_BITS.get(operation.name, 0)}".encode()
    return b"%d" % operation.number


# -- what is read from outside -----------------------------------------------------------------------------------------


def _attributes(operations: list[_Op], index: int) -> tuple[str, ...]:
    """The attributes read at once from what an instruction loads."""
    found = []
    for following in operations[index + 1 :]:
        if following.name not in _ATTRIBUTES:
            break
        found.append(str(following.argument))
    return tuple(found)


def _chains(operations: list[_Op]) -> Iterator[Chain]:
    for index, operation in enumerate(operations):
        if operation.name in _GLOBALS:
            yield Chain(str(operation.argument), _attributes(operations, index))


def _imports(operations: list[_Op], code: CodeType) -> Iterator[Import]:
    for index, operation in enumerate(operations):
        if operation.name != "IMPORT_NAME":
            continue
        level, names = (operations[index - 2].argument, operations[index - 1].argument)
        depth = level if isinstance(level, int) else 0
        module = str(operation.argument)
        if isinstance(names, tuple):
            for at, name in _taken(operations, index, len(names)):
                yield Import(module, depth, name, True, _uses(operations, at, code))
        else:
            whole = operations[index + 1].name == "IMPORT_FROM"
            stores = (at for at in range(index + 1, len(operations)) if operations[at].name in _STORES)
            yield Import(module, depth, None, whole, _uses(operations, next(stores, index), code))


def _taken(operations: list[_Op], index: int, count: int) -> Iterator[tuple[int, str]]:
    """Where each name of a ``from`` import is stored."""
    for at in range(index + 1, min(index + 1 + 2 * count, len(operations) - 1), 2):
        if operations[at].name == "IMPORT_FROM":
            yield at + 1, str(operations[at].argument)


def _uses(operations: list[_Op], stored: int, code: CodeType) -> tuple[tuple[str, ...], ...]:
    """The attributes read from what is stored; ``()`` if it is kept, passed on, captured or stored elsewhere, too."""
    target = operations[stored]
    name = target.argument
    stores = sum(one.name in _STORES and one.argument == name for one in operations)
    if target.name not in ("STORE_FAST", "STORE_NAME") or stores != 1 or name in code.co_cellvars:
        return ((),)
    loads = [at for at, one in enumerate(operations) if one.name in _LOADS and one.argument == name]
    return tuple(dict.fromkeys(_attributes(operations, at) for at in loads))
