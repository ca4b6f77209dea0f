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
from mainspring.deploy.ci.generate import made
from mainspring.deploy.ci.integration import integration_of, repository_of
from mainspring.deploy.image.reference import reference_of
from mainspring.deploy.kubeflow import compiled, spelled
from mainspring.deploy.shipping import release_at
from mainspring.engine.arguments import converted
from mainspring.errors import RefusedError, UsageError
from mainspring.server.loop import named_node, resolver
from mainspring.server.planning import plan_of

__all__ = ["integration", "kubeflow", "replace_file"]


def kubeflow(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    words: tuple[str, ...],
    image: str | None,
    to: Path | None,
) -> int:
    """Compile a pipeline: ``NAME [KEY=VALUE]...``, what is given being fixed.

    Raises:
        UsageError: MS-2776, no pipeline is named; MS-2777, MS-2744, there is no such image.
        DeclarationError: as the pipeline is compiled.
    """
    if not words or "=" in words[0]:
        raise UsageError("no pipeline is named", code="MS-2776", fix="mainspring build --kfp NAME")
    services, app = open_app(project, profile)
    plan = plan_of(app)
    node = named_node(plan, words[0] if "/" in words[0] else f"pipeline/{words[0]}")
    pipeline = cast("Pipeline[..., object]", node.declaration)
    if not isinstance(pipeline, Pipeline):
        raise UsageError(f"{words[0]!r} is no pipeline", code="MS-2776", fix="mainspring show pipeline")
    at = release_at(services, None).image if image is None else _by_digest(image)
    texts = parsed(words[1:])
    function = spec_of(pipeline).function
    given = converted(function, texts, handed=function.__code__.co_varnames)
    found = compiled(pipeline, given, resolver(services, plan), plan.app, at)
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


def _by_digest(image: str) -> str:
    if not reference_of(image, origin="--use").digest:
        raise UsageError(
            f"{image!r} is no image by its digest",
            code="MS-2777",
            why="a tag may mean another image by the time that a step is started",
            origin="--use",
            fix="mainspring build --image prints the digest",
        )
    return image


def integration(project: Path | None, profile: str | None, as_json: bool, flavour: str, force: bool) -> int:
    """Write the files of a CI service into the repository that the project is in.

    Raises:
        RefusedError: MS-5103, a file was changed outside of the blocks that are the user's.
        UsageError, ConfigError: as `integration_of` and `made`.
    """
    services, app = open_app(project, profile)
    root = repository_of(services.project)
    found = integration_of(services.settings, plan_of(app))
    files = made(flavour, found, root)
    for one in files:
        if one.touched and one.state == "changed" and not force:
            raise RefusedError(
                f"{one.path} was changed outside of the blocks that are yours",
                code="MS-5103",
                why="what stands there would be lost",
                origin=one.path,
                fix=f"move it between the marks, or write over it: mainspring build --ci {flavour} --force",
            )
    for one in files:
        replace_file(root / one.path, one.text)
        tell(f"{one.path}: {_SAID[one.state]}")
    for missing, what in ((not found.image, "image.repository"), (not found.target, "ci.target")):
        if missing:
            tell(f"note: {what} is not set, so nothing is {'pushed' if what.startswith('image') else 'deployed'}")
    if as_json:
        emit({"files": [{"path": one.path, "state": one.state} for one in files]})
    else:
        lines([one.path for one in files])
    return 0


_SAID = {"new": "written", "changed": "written anew", "same": "unchanged"}


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
