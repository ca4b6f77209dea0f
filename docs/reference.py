"""Write the reference pages from the source: errors, settings, command line; ``--check`` says what is out of date."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from mainspring.choose.decide import SHARED
from mainspring.cli import VERBS, module_of
from mainspring.config.schema import PORTS, SETTINGS

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "mainspring"
CODE = re.compile(r"MS-\d{4}")
EXITS = {
    "DeclarationError": 1,
    "Unencodable": 1,
    "UserCodeError": 1,
    "DataError": 1,
    "UsageError": 2,
    "ConfigError": 3,
    "ServiceError": 4,
    "StoreError": 4,
    "RefusedError": 5,
    "InternalError": 70,
}


class Module:
    """One source file, whose texts can be looked up where they are used."""

    def __init__(self, path: Path) -> None:
        self.tree = ast.parse(path.read_text("utf-8"))
        self._functions = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)]

    def text(self, node: ast.expr | None) -> str:
        """A text as far as it is known; what is filled in at run time becomes an ellipsis."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        if isinstance(node, ast.IfExp):
            return self.text(node.body)
        if isinstance(node, ast.BoolOp):
            return self.text(node.values[-1])
        if isinstance(node, ast.BinOp):
            return self.text(node.left) + self.text(node.right)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "did_you_mean":
            return "use a known name; it tells the nearest"
        return self._named(node) if isinstance(node, ast.Name) else ""

    def _named(self, name: ast.Name) -> str:
        """The text that a name had last; of a parameter, what the module's own calls give for it."""
        before = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign)
            and name.id in _targets(node)
            and (node.lineno < name.lineno or node.col_offset == 0)
        ]
        if before:
            return self.text(max(before, key=lambda node: node.lineno).value)
        for function in self._functions:
            names = [argument.arg for argument in function.args.args]
            if function.lineno <= name.lineno <= (function.end_lineno or 0) and name.id in names:
                return self._given(function.name, names.index(name.id))
        return ""

    def _given(self, function: str, place: int) -> str:
        calls = (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))
        given = [
            self.text(node.args[place])
            for node in calls
            if getattr(node.func, "id", "") == function
            and len(node.args) > place
            and not isinstance(node.args[place], ast.Name)
        ]
        return "; or: ".join(dict.fromkeys(filter(None, given)))

    def errors(self) -> Iterator[tuple[str, str, str, str]]:
        """Code, what, fix and class of each error that is made here."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                words = {word.arg: word.value for word in node.keywords}
                code = self.text(words.get("code"))
                if CODE.fullmatch(code):
                    fix = self.text(words.get("fix")) or ("it tells what to do" if "fix" in words else "")
                    if name == "Error":  # the last event of an assistant's run that has failed
                        yield code, self.text(words.get("message")), fix or "ask again, or for less", "ServiceError"
                    else:
                        yield code, self.text(node.args[0]) if node.args else "", fix, name
                elif name == "Fault" and len(node.args) > 3 and CODE.fullmatch(self.text(node.args[2])):
                    kind, what, code, *rest = (self.text(argument) for argument in node.args)
                    yield code, what, rest[2] if len(rest) > 2 else "", kind
            elif isinstance(node, ast.Tuple):
                texts = [self.text(item) for item in node.elts if isinstance(item, ast.Constant)]
                if len(texts) == 4 and CODE.fullmatch(texts[2]):  # a driver's word, what, code, fix
                    yield texts[2], texts[1], texts[3], "StoreError"


def _targets(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def errors() -> str:
    found: dict[str, tuple[str, str, str]] = {}
    mentioned: set[str] = set()
    for path in sorted(SOURCE.rglob("*.py")):
        module = Module(path)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                mentioned.add(node.value)
        for code, *entry in module.errors():
            if code not in found or sum(map(len, entry[:2])) > sum(map(len, found[code][:2])):
                found[code] = (entry[0], entry[1], entry[2])
    lines = [
        "# Errors",
        "",
        "Every error of Mainspring has a code. The table says what it means, what to do, and the exit status of the",
        "command line. An ellipsis stands for what is known only when it happens.",
        "",
        "| code | what | fix | exit |",
        "|---|---|---|---|",
    ]
    for code in sorted(mentioned):
        what, fix, kind = found.get(code, ("", "", ""))
        if not what or not (fix or kind in ("InternalError", "Fault")):
            raise SystemExit(f"{code} has {'no remedy' if what else 'no text'} that can be found in the source")
        lines.append(f"| {code} | {cell(what)} | {cell(fix)} | {EXITS.get(kind, '')} |")
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def shown(default: object) -> str:
    return "" if default is None else f"`{default}`"


def settings() -> str:
    lines = [
        "# Settings",
        "",
        "Settings live in `mainspring.toml`. Order of values: defaults, then the file, then the active profile, then",
        "the environment (`server.port` is `MAINSPRING_SERVER_PORT`), then flags. A value may be a secret reference:",
        "`env:NAME` or `file:PATH`, or `${env:NAME}` inside a longer text.",
        "",
        "| setting | type | takes | default | meaning |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{spec.key}` | {spec.type.__name__} | {spec.range()} | {shown(spec.default)} | {cell(spec.meaning)} |"
        for spec in SETTINGS
    ]
    lines += [
        "",
        "## Ports",
        "",
        "Each port is served by one adapter, `runtime` and `converter` by all that are installed, each for what it",
        "reads. Besides these keys, a port's section holds the adapter's own settings.",
        "",
    ]
    lines += [
        f"- `{port}.adapter` names the only adapter that shall serve."
        if port in SHARED
        else f"- `{port}.adapter` names the adapter, `{port}.url` says where the service is."
        for port in PORTS
    ]
    return "\n".join(lines) + "\n"


def cli() -> str:
    lines = ["# Command line", "", "Data goes to stdout, all else to stderr; `--json` works everywhere.", ""]
    for verb in VERBS:
        command = importlib.import_module(module_of(verb)).command
        below = command.commands.items() if isinstance(command, click.Group) else ()
        for name, each in ((verb, command), *((f"{verb} {word}", each) for word, each in below)):
            with click.Context(
                each, info_name=f"mainspring {name}", max_content_width=100, terminal_width=100
            ) as context:
                lines += [f"## mainspring {name}", "", "```", each.get_help(context), "```", ""]
    lines += [
        "## Exit statuses",
        "",
        "0 done, 1 the user's code or data failed, 2 usage (or a difference, for `plan`), 3 configuration, 4 a service",
        "could not be reached, 5 refused by a gate or quota, 70 our bug, 130 stopped.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    stale = []
    for name, write in (("errors", errors), ("settings", settings), ("cli", cli)):
        path = ROOT / "docs" / f"{name}.md"
        text = write()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text, "utf-8")
    if stale and "--check" in sys.argv:
        print(f"out of date: {', '.join(stale)}; run python docs/reference.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
