"""``mainspring build``: what ships the app: an image, and what the place where it runs is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from mainspring.choose.services import Services
from mainspring.cli.build_image import build_image, eject_files
from mainspring.cli.build_target import FORMS, build_target
from mainspring.cli.options import open_services, project_options
from mainspring.deploy.image.manifest import VARIANTS
from mainspring.errors import UsageError

__all__ = ["command"]


@click.command(short_help="an image of the app, and what the place where it runs is told")
@click.option("--image", "image", is_flag=True, help="an OCI image: pushed to image.repository, without a daemon")
@click.option("--layout", type=click.Path(file_okay=False, path_type=Path), help="write it as an OCI layout into DIR")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="a name for it; the first 16 digits of its digest")
@click.option(
    "--for", "variant", type=click.Choice(sorted(VARIANTS)), default="kubernetes", show_default=True, help="the target"
)
@click.option("--eject", "ejected", is_flag=True, help="write a Dockerfile and a compose file instead, to keep")
@click.option("--k8s", "k8s", is_flag=True, help="Kubernetes objects of the image that was pushed last")
@click.option("--kserve", "kserve", is_flag=True, help="the same with KServe's InferenceService")
@click.option("--render", "form", type=click.Choice(FORMS), help="their form; manifests when left out")
@click.option("--target", metavar="NAME", help="render for [targets.NAME]")
@click.option("--of", "of", metavar="IMAGE", help="another image, by its digest")
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="the folder to render into")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    image: bool,
    layout: Path | None,
    tags: tuple[str, ...],
    variant: str,
    ejected: bool,
    k8s: bool,
    kserve: bool,
    form: str | None,
    target: str | None,
    of: str | None,
    out: Path | None,
) -> int:
    """Build what ships the app; what is unchanged is neither made nor sent again.

    For an image the app is not imported. Objects are rendered without asking a cluster: `mainspring deploy` asks it.
    """
    name = target or ("kserve" if kserve else "kubernetes")
    builds: tuple[tuple[bool, Callable[[Services], None]], ...] = (
        (ejected, lambda services: eject_files(services, as_json)),
        (image and not ejected, lambda services: build_image(services, as_json, layout, tags, variant)),
        (
            k8s or kserve or form is not None or target is not None,
            lambda services: build_target(services, as_json, name, form or FORMS[0], of, out),
        ),
    )
    chosen = [make for asked, make in builds if asked]
    if not chosen:
        raise UsageError("nothing is asked for", code="MS-2704", fix="mainspring build --image")
    services = open_services(project, profile)
    try:
        for make in chosen:
            make(services)
        return 0
    finally:
        services.close()
