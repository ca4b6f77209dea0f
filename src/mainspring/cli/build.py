"""``mainspring build``: what ships the app: an image, and what clusters, pipelines and CI services are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from mainspring.choose.services import Services
from mainspring.cli.build_image import build_image, eject_files
from mainspring.cli.build_target import FORMS, build_target
from mainspring.cli.emitting import integration, kubeflow
from mainspring.cli.options import open_services, project_options
from mainspring.deploy.ci.generate import FLAVOURS
from mainspring.deploy.image.manifest import VARIANTS
from mainspring.errors import UsageError

__all__ = ["command"]


@click.command(short_help="what ships the app: an image, and what clusters, pipelines and CI services are told")
@click.argument("words", nargs=-1, metavar="[NAME] [KEY=VALUE]...")
@click.option("--image", "image", is_flag=True, help="an OCI image: pushed to image.repository, without a daemon")
@click.option("--layout", type=click.Path(file_okay=False, path_type=Path), help="write it as an OCI layout into DIR")
@click.option("--bill", type=click.Path(file_okay=False, path_type=Path), help="its bill of materials into DIR, too")
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
@click.option("--kfp", "kfp", is_flag=True, help="the pipeline NAME for Kubeflow and Vertex AI Pipelines")
@click.option("--ci", "flavour", type=click.Choice(sorted(FLAVOURS)), help="pipelines for a CI service")
@click.option("--force", is_flag=True, help="with --ci: also over what was changed outside of your blocks")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="the folder to render into; with --kfp the file")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    words: tuple[str, ...],
    image: bool,
    layout: Path | None,
    bill: Path | None,
    tags: tuple[str, ...],
    variant: str,
    ejected: bool,
    k8s: bool,
    kserve: bool,
    form: str | None,
    target: str | None,
    of: str | None,
    kfp: bool,
    flavour: str | None,
    force: bool,
    out: Path | None,
) -> int:
    """Build what ships the app; what is unchanged is neither made nor sent again.

    For an image the app is not imported. Objects are rendered without asking a cluster: `mainspring deploy` asks it.
    """
    name = target or ("kserve" if kserve else "kubernetes")
    builds: tuple[tuple[bool, Callable[[Services], None]], ...] = (
        (ejected, lambda services: eject_files(services, as_json)),
        (image and not ejected, lambda services: build_image(services, as_json, layout, tags, variant, bill)),
        (
            k8s or kserve or form is not None or target is not None,
            lambda services: build_target(services, as_json, name, form or FORMS[0], of, out),
        ),
        (kfp, lambda services: kubeflow(services, as_json, words, of, out)),
        (flavour is not None, lambda services: integration(services, as_json, flavour or "", force)),
    )
    if words and not kfp:
        raise UsageError(f"{words[0]!r} is too much", code="MS-2779", fix="only --kfp takes a name")
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
