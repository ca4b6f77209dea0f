"""``mainspring build``: what ships the app: an image, pipelines for others to run, files for CI."""

from __future__ import annotations

from pathlib import Path

import click

from mainspring.cli.emitting import kubeflow
from mainspring.cli.imaging import build_image
from mainspring.cli.options import project_options
from mainspring.deploy.ci.generate import FLAVOURS
from mainspring.deploy.image.manifest import VARIANTS
from mainspring.errors import UsageError

__all__ = ["command"]


@click.command(short_help="what ships the app: an image, pipelines for others to run, files for CI")
@click.argument("words", nargs=-1, metavar="[NAME] [KEY=VALUE]...")
@click.option("--image", "image", is_flag=True, help="an OCI image: pushed to image.repository, without a daemon")
@click.option("--layout", type=click.Path(file_okay=False, path_type=Path), help="write it as an OCI layout into DIR")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="a name for it; the first 16 digits of its digest")
@click.option(
    "--for", "variant", type=click.Choice(sorted(VARIANTS)), default="kubernetes", show_default=True, help="the target"
)
@click.option("--eject", "ejected", is_flag=True, help="write a Dockerfile and a compose file instead, to keep")
@click.option("--kfp", "kfp", is_flag=True, help="the pipeline NAME for Kubeflow and Vertex AI Pipelines")
@click.option("--use", "use", metavar="IMAGE", help="with --kfp: the image that the steps run in")
@click.option("-o", "--output", "to", type=click.Path(dir_okay=False, path_type=Path), help="with --kfp: the file")
@click.option("--ci", "flavour", type=click.Choice(sorted(FLAVOURS)), help="pipelines for a CI service")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    words: tuple[str, ...],
    image: bool,
    layout: Path | None,
    tags: tuple[str, ...],
    variant: str,
    ejected: bool,
    kfp: bool,
    use: str | None,
    to: Path | None,
    flavour: str | None,
) -> int:
    """Build what ships the app.

    An image is built without importing the app; what is unchanged is neither made nor sent again.
    """
    if sum((image or ejected, kfp, flavour is not None)) != 1:
        raise UsageError(
            "nothing is asked for, or several things at once",
            code="MS-2704",
            fix="mainspring build --image",
        )
    if kfp:
        return kubeflow(project, profile, as_json, words, use, to)
    if words:
        raise UsageError(f"{words[0]!r} is too much", code="MS-2779", fix="only --kfp takes a name")
    if flavour is not None:
        return 0
    return build_image(project, profile, as_json, layout, tags, variant, ejected)
