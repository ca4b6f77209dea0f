"""What ``mainspring build --image`` and ``--eject`` do."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from mainspring.cli.options import open_services
from mainspring.cli.output import emit, lines, tell
from mainspring.deploy.image.build import Image, base_registry, build, epoch_of, image_store
from mainspring.deploy.image.door import door_of
from mainspring.deploy.image.eject import eject
from mainspring.deploy.image.manifest import VARIANTS
from mainspring.deploy.image.reference import Reference, reference_of, refuse_tags
from mainspring.deploy.image.referrers import attached
from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.sbom import MEDIA_TYPE
from mainspring.deploy.image.transport import Sent, push, write_layout
from mainspring.deploy.shipping import remember
from mainspring.errors import UsageError

__all__ = ["build_image"]


def build_image(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    layout: Path | None,
    tags: tuple[str, ...],
    variant: str,
    ejected: bool,
    to_folder: Path | None = None,
    platforms: tuple[str, ...] = (),
) -> int:
    """Make an image and send it where it belongs; or, `ejected`, write what another builder takes.

    `to_folder` gets the bills of materials, too: ``image.cdx.json``. `platforms` are those of this image,
    instead of those of the settings.
    """
    refuse_tags(tags)
    services = open_services(project, profile, {"image.platforms": list(platforms) or None})
    settings, started = services.settings, time.monotonic()
    try:
        told = (lambda text: None) if as_json else tell
        if ejected:
            written = eject(services, told)
            emit({"written": written}) if as_json else lines(written)
            return 0
        to = settings.text("image.repository")
        if not to and layout is None:
            raise UsageError(
                "the image has nowhere to go",
                code="MS-2702",
                why="neither image.repository nor --layout says where",
                fix='image.repository = "registry.example.com/team/name", or mainspring build --image --layout DIR',
            )
        at = reference_of(to, origin=getattr(settings.setting("image.repository"), "origin", "")) if to else None
        registry = None if at is None else Registry(at)
        with door_of(registry) as door:
            found = build(services, VARIANTS[variant], epoch=epoch_of(os.environ), told=told, door=door)
            names = list(tags) or [found.built.top.digest[7:23]]
            store, sent, bills = image_store(services), Sent(), {}
            if layout is not None:
                write_layout(found.built, layout, lambda: base_registry(settings), store, names[0])
                _write_bills(found, layout, [f"{digest[7:23]}.cdx.json" for digest in found.bills])
            if to_folder is not None:
                numbers = range(1, len(found.bills) + 1)
                _write_bills(found, to_folder, [f"image{f'-{one}' if one > 1 else ''}.cdx.json" for one in numbers])
            if registry is not None:
                documents = [
                    attached(one.described, MEDIA_TYPE, found.bills[one.described.digest])
                    for one in found.built.manifests
                ]
                bills = {one.subject: one.own.digest for one in documents}
                door.enter()
                sent = push(found.built, registry, lambda: base_registry(settings), store, names, told, documents)
                name = f"{registry.at.host}/{registry.at.name}@{found.built.top.digest}"
                remember(services, name, dict(found.release.models))
        _show(found, at, names, sent, bills, time.monotonic() - started, as_json)
        return 0
    finally:
        services.close()


def _write_bills(found: Image, folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in zip(names, found.bills.values(), strict=True):
        (folder / name).write_bytes(data)


def _show(
    found: Image,
    at: Reference | None,
    tags: list[str],
    sent: Sent,
    bills: dict[str, str],
    seconds: float,
    as_json: bool,
) -> None:
    digest = found.built.top.digest
    name = "" if at is None else str(Reference(at.host, at.name, "", digest))
    if as_json:
        emit(
            {
                "image": name,
                "digest": digest,
                "tags": tags,
                "base": f"{found.base.reference}@{found.base.digest}",
                "layers": [
                    {"title": one.title, "digest": one.digest, "diff_id": one.diff_id, "size": one.size}
                    for one in found.layers
                ],
                "models": found.release.models,
                "sent": {name: getattr(sent, name) for name in ("uploaded", "mounted", "there", "bytes")},
                "sbom": bills,
                "notes": list(found.notes),
                "seconds": round(seconds, 3),
            }
        )
        return
    for note in found.notes:
        tell(f"note: {note}")
    sizes = ", ".join(f"{one.title} {one.size / 1e6:.1f} MB" for one in found.layers)
    tell(f"layers: base, {sizes}")
    if name:
        tell(f"{sent.uploaded} uploaded ({sent.bytes / 1e6:.1f} MB), {sent.mounted} mounted, {seconds:.1f} s")
    lines([name or digest])
