"""``mainspring build``: what ships the app: an image, objects for a cluster, pipelines for others, files for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.options import project_options
from mainspring.deploy.image.manifest import VARIANTS
from mainspring.errors import UsageError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    from mainspring.cli import emitting, imaging, rendering
else:  # what one of them needs, the help and the others do not
    emitting, imaging = lazy("mainspring.cli.emitting"), lazy("mainspring.cli.imaging")
    rendering = lazy("mainspring.cli.rendering")

__all__ = ["FLAVOURS", "command"]

FORMS = ("manifests", "helm", "kustomize")
FLAVOURS = ("github", "gitlab", "jenkins")
"""As the generators are called, which no other build loads."""


@click.command(short_help="what ships the app: an image, objects for a cluster, pipelines for others, files for CI")
@click.argument("words", nargs=-1, metavar="[NAME] [KEY=VALUE]...")
@click.option("--image", "image", is_flag=True, help="an OCI image: pushed to image.repository, without a daemon")
@click.option("--layout", type=click.Path(file_okay=False, path_type=Path), help="write it as an OCI layout into DIR")
@click.option("--bill", type=click.Path(file_okay=False, path_type=Path), help="its bill of materials into DIR, too")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="linux/amd64, linux/arm64, or both")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="a name for it; the first 16 digits of its digest")
@click.option(
    "--for", "variant", type=click.Choice(sorted(VARIANTS)), default="kubernetes", show_default=True, help="the target"
)
@click.option("--eject", "ejected", is_flag=True, help="write a Dockerfile and a compose file instead, to keep")
@click.option("--k8s", "k8s", is_flag=True, help="objects for Kubernetes, rendered without asking a cluster")
@click.option("--kserve", "kserve", is_flag=True, help="the same with KServe's InferenceService")
@click.option("--render", "form", type=click.Choice(FORMS), help="objects in this form; manifests when left out")
@click.option("--target", metavar="NAME", help="objects for [targets.NAME]")
@click.option("--kfp", "kfp", is_flag=True, help="the pipeline NAME for Kubeflow and Vertex AI Pipelines")
@click.option("--use", "use", metavar="IMAGE", help="the image to run: that of --kfp, or another than was pushed last")
@click.option("-o", "--output", "to", type=click.Path(path_type=Path), help="the file of --kfp, the folder of objects")
@click.option("--ci", "flavour", type=click.Choice(FLAVOURS), help="pipelines for a CI service")
@click.option("--force", is_flag=True, help="with --ci: also over what was changed outside of your blocks")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    words: tuple[str, ...],
    image: bool,
    layout: Path | None,
    bill: Path | None,
    platforms: tuple[str, ...],
    tags: tuple[str, ...],
    variant: str,
    ejected: bool,
    k8s: bool,
    kserve: bool,
    form: str | None,
    target: str | None,
    kfp: bool,
    use: str | None,
    to: Path | None,
    flavour: str | None,
    force: bool,
) -> int:
    """Build what ships the app.

    An image is built without importing the app; what is unchanged is neither made nor sent again.
    """
    objects = k8s or kserve or form is not None or target is not None
    if sum((image or ejected, objects, kfp, flavour is not None)) != 1:
        raise UsageError(
            "nothing is asked for, or several things at once",
            code="MS-2704",
            fix="mainspring build --image",
        )
    if kfp:
        return emitting.kubeflow(project, profile, as_json, words, use, to)
    if words:
        raise UsageError(f"{words[0]!r} is too much", code="MS-2779", fix="only --kfp takes a name")
    if flavour is not None:
        return emitting.integration(project, profile, as_json, flavour, force)
    if objects:
        name = target or ("kserve" if kserve else "kubernetes")
        return rendering.render_target(project, profile, as_json, name, form or FORMS[0], use, to)
    return imaging.build_image(project, profile, as_json, layout, tags, variant, ejected, bill, platforms)
