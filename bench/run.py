"""The bars: ``./run bench`` lists them, ``./run bench NAME`` measures one, ``./run bench all`` each in turn."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def scripts() -> dict[str, str]:
    found = {}
    for path in sorted(HERE.glob("*.py")):
        if path.stem != "run":
            text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            found[path.stem] = text.splitlines()[0] if text else ""
    return found


def main(arguments: list[str]) -> int:
    known = scripts()
    if not arguments:
        width = max(map(len, known))
        print("\n".join(f"{name:<{width}}  {text}" for name, text in known.items()))
        return 0
    wanted = list(known) if arguments[0] == "all" else [arguments[0]]
    if wanted[0] not in known:
        print(f"no bench is called {wanted[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    return max(subprocess.call([sys.executable, str(HERE / f"{name}.py"), *arguments[1:]]) for name in wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
