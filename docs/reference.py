"""Write the reference pages from the source: errors, settings, command line; ``--check`` says what is out of date."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import click

from mainspring.cli import VERBS
from mainspring.config.schema import PORTS, SETTINGS

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "mainspring"
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


def text_of(node: ast.expr | None) -> str:
    """A literal or an f-string as text; what is filled in at run time becomes an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.IfExp):
        return text_of(node.body)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""


def errors() -> str:
    found: dict[str, tuple[str, str, str]] = {}
    mentioned: set[str] = set()
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"MS-\d{4}", node.value):
                mentioned.add(node.value)
            if isinstance(node, ast.Call):
                entry = error_of(node)
                if entry is not None and (entry[0] not in found or not found[entry[0]][1]):
                    found[entry[0]] = entry[1:]
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
        lines.append(f"| {code} | {cell(what)} | {cell(fix)} | {EXITS.get(kind, '')} |")
    return "\n".join(lines) + "\n"


def error_of(call: ast.Call) -> tuple[str, str, str, str] | None:
    code = next((text_of(word.value) for word in call.keywords if word.arg == "code"), "")
    if not re.fullmatch(r"MS-\d{4}", code):
        return None
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    what = text_of(call.args[0]) if call.args else ""
    fix = next((text_of(word.value) for word in call.keywords if word.arg == "fix"), "")
    return code, what, fix, name


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
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{spec.key}` | {spec.type.__name__} | {shown(spec.default)} | {cell(spec.meaning)} |" for spec in SETTINGS
    ]
    lines += [
        "",
        "## Ports",
        "",
        "Each port is served by one adapter. Besides these two keys, a port's section holds the",
        "adapter's own settings.",
        "",
    ]
    lines += [f"- `{port}.adapter` names the adapter, `{port}.url` says where the service is." for port in PORTS]
    return "\n".join(lines) + "\n"


def cli() -> str:
    lines = ["# Command line", "", "Data goes to stdout, all else to stderr; `--json` works everywhere.", ""]
    for verb in VERBS:
        command = importlib.import_module(f"mainspring.cli.{verb}").command
        with click.Context(
            command, info_name=f"mainspring {verb}", max_content_width=100, terminal_width=100
        ) as context:
            lines += [f"## mainspring {verb}", "", "```", command.get_help(context), "```", ""]
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
