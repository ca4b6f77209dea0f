"""What ``mainspring build`` writes for others to run: Kubeflow's representation, CI pipelines."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import cast

from mainspring.cli.options import open_app
from mainspring.cli.output import emit, lines, tell
from mainspring.cli.run import parsed
from mainspring.declare.declaration import spec_of
from mainspring.declare.step import Pipeline
from mainspring.deploy.kubeflow import compiled, spelled
from mainspring.engine.arguments import converted
from mainspring.errors import UsageError
from mainspring.server.loop import named_node, resolver
from mainspring.server.planning import plan_of

__all__ = ["kubeflow", "replace_file"]


def kubeflow(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    words: tuple[str, ...],
    image: str | None,
    to: Path | None,
) -> int:
    """Compile a pipeline: ``NAME [KEY=VALUE]...``, what is given being fixed."""
    if not words or "=" in words[0]:
        raise UsageError("no pipeline is named", code="MS-2776", fix="mainspring build --kfp NAME --use IMAGE")
    if not image:
        raise UsageError(
            "which image the steps run in is not said",
            code="MS-2777",
            why="every step is a container of the app's image",
            fix="pass the line that mainspring build --image printed: --use registry/app@sha256:...",
        )
    services, app = open_app(project, profile)
    plan = plan_of(app)
    node = named_node(plan, words[0] if "/" in words[0] else f"pipeline/{words[0]}")
    pipeline = cast("Pipeline[..., object]", node.declaration)
    if not isinstance(pipeline, Pipeline):
        raise UsageError(f"{words[0]!r} is no pipeline", code="MS-2776", fix="mainspring show pipeline")
    texts = parsed(words[1:])
    function = spec_of(pipeline).function
    given = converted(function, texts, handed=function.__code__.co_varnames)
    found = compiled(pipeline, given, resolver(services, plan), plan.app, image)
    text = spelled(found, as_json=to is not None and to.suffix == ".json")
    for note in found.notes:
        tell(f"note: {note}")
    if to is not None:
        replace_file(to, text)
    if as_json:
        emit({"pipeline": found.name, "parameters": found.parameters, "file": None if to is None else str(to)})
    else:
        lines([str(to) if to is not None else text.rstrip("\n")])
    return 0


def replace_file(path: Path, text: str) -> bool:
    """Write a file whole or not at all; whether that changed anything.

    Raises:
        UsageError: MS-2778, it cannot be written.
    """
    try:
        if path.exists() and path.read_text("utf-8") == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "w", encoding="utf-8") as out:
                out.write(text)
            os.chmod(part, path.stat().st_mode & 0o777 if path.exists() else 0o644)
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written", code="MS-2778", why=error.strerror or str(error), fix="name another place"
        ) from error
    return True
