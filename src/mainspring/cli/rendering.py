"""``mainspring build --k8s``, ``--kserve`` and ``--render``: what a target would be sent, as files."""

from __future__ import annotations

from pathlib import Path

from mainspring.cli.emitting import replace_file
from mainspring.cli.options import open_services
from mainspring.cli.output import emit, tell
from mainspring.cli.shipping import revision_of
from mainspring.errors import UsageError

__all__ = ["FORMS", "render_target"]

FORMS = ("manifests", "helm", "kustomize")


def render_target(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    target: str,
    form: str,
    image: str | None,
    out: Path | None,
) -> int:
    """Render without asking anybody; one file goes to stdout unless a folder is named.

    Raises:
        UsageError: MS-2743, files have no folder to go to; MS-2741 to MS-2745, as the target and the image are named.
    """
    services = open_services(project, profile)
    try:
        deployment = services.target(target)
        revision = revision_of(services, image)
        rendered = deployment.target.render(revision, None, deployment.target.world)
        files = deployment.target.files(revision, rendered, form)
    finally:
        services.close()
    if out is None and len(files) > 1:
        raise UsageError(
            f"{form} is {len(files)} files",
            code="MS-2743",
            why="they cannot all go to stdout",
            fix=f"mainspring build --render {form} -o DIR",
        )
    if out is None:
        texts = {name: data.decode() for name, data in files.items()}
        if as_json:
            emit({"revision": revision.id, "files": texts})
        else:
            print(*texts.values(), sep="", end="")
        return 0
    for name, data in files.items():
        replace_file(out / name, data.decode())
    if as_json:
        emit({"revision": revision.id, "folder": str(out), "files": sorted(files)})
    else:
        tell(f"{len(rendered.objects)} objects of revision {revision.id} in {out}")
    return 0
