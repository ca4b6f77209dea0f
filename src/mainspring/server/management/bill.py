"""``/actuator/sbom``: the installed distributions as a CycloneDX document."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping

from mainspring.protocols.actuator.page import Operation, Page, RunBlocking, reading
from mainspring.protocols.http import Fault, Request, Response, json_response

__all__ = ["bill_page"]

_ID = "application"
_CYCLONEDX = b"application/vnd.cyclonedx+json"


def bill_page(app: str, run: RunBlocking) -> Page:
    """The page: ``sbom`` lists the documents, ``sbom/application`` is the only one."""

    def listed(request: Request) -> object:
        return {"ids": [_ID]}

    async def one(request: Request) -> Response:
        if request.parameters != (_ID,):
            raise Fault(404, f"there is no bill {request.parameters[0][:80]!r}")
        return json_response(await run(_bill, app), content_type=_CYCLONEDX)

    return Page("sbom", (Operation("GET", reading(listed, run)), Operation("GET", one, "*", "{id}", "id")))


def _bill(app: str) -> Mapping[str, object]:
    found = {}
    for one in importlib.metadata.distributions():
        name = one.metadata["Name"]
        if not name:
            continue
        purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{one.version}"
        found[purl] = {"type": "library", "name": name, "version": one.version, "purl": purl, "bom-ref": purl}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": app, "bom-ref": app}},
        "components": [found[purl] for purl in sorted(found)],
    }
