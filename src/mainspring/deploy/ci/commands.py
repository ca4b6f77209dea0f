"""The commands that every flavour calls: the same ones on a laptop."""

from __future__ import annotations

from mainspring.deploy.ci.integration import SHARES, Integration

__all__ = ["BACK", "CHECK", "DUE", "GATE", "IMAGE", "SIGN", "VERDICTS", "install", "rollout", "watched"]

VERDICTS = "verdicts"
CHECK = "mainspring ci verify\nmainspring check"
DUE = "mainspring ci due"
GATE = f'mainspring gate "$MODEL" --out "{VERDICTS}/$MODEL.json"'
IMAGE = "mainspring build --image --bill sbom"
SIGN = 'cosign sign --yes "$IMAGE"\ncosign attest --yes --type cyclonedx --predicate sbom/image.cdx.json "$IMAGE"'
BACK = 'mainspring deploy traffic 0 --target "$TARGET"'


def install(lock: str) -> str:
    """Exactly what was tried."""
    return f"python -m pip install --disable-pip-version-check --require-hashes -r {lock}"


def rollout(share: int) -> str:
    """Give the new image a share of the requests."""
    if share == SHARES[0]:
        return f'mainspring deploy --canary {share} --image "$IMAGE" --target "$TARGET"'
    return f'mainspring deploy traffic {share} --target "$TARGET"'


def watched(found: Integration) -> str:
    """Hold it against the champion."""
    if found.champion_url and found.canary_url:
        return f'mainspring ci canary "$CHAMPION_URL" "$CANARY_URL" --watch {found.watch}'
    return 'mainspring deploy status --target "$TARGET"'
