"""The actions that generated workflows use, each by the commit of a release.

A tag can be moved to other code, a commit cannot. Dependabot and Renovate know this form, and what they raise in a
generated file stays when it is generated again; new releases of Mainspring raise this table.
"""

from __future__ import annotations

import msgspec

__all__ = ["ACTIONS", "Pin"]


class Pin(msgspec.Struct, frozen=True):
    """An action's release.

    Attributes:
        action: ``owner/name``.
        version: its tag, for people.
        commit: 40 hex digits.
    """

    action: str
    version: str
    commit: str

    def __str__(self) -> str:
        return f"{self.action}@{self.commit} # {self.version}"


ACTIONS = {
    pin.action: pin
    for pin in (
        Pin("actions/attest-build-provenance", "v3.0.0", "977bb373ede98d70efdf65b84cb5f73e068dcc2a"),
        Pin("actions/checkout", "v5.0.0", "08c6903cd8c0fde910a37f88322edcfb5dd907a8"),
        Pin("actions/download-artifact", "v5.0.0", "634f93cb2916e3fdff6788551b99b062d0335ce0"),
        Pin("actions/setup-python", "v6.0.0", "e797f83bcb11b83ae66e0230d6156d7c80228e7c"),
        Pin("actions/upload-artifact", "v4.6.2", "ea165f8d65b6e75b540449e92b4886f43607fa02"),
        Pin("anchore/scan-action", "v7.4.0", "e1165082ffb1fe366ebaf02d8526e7c4989ea9d2"),
        Pin("aws-actions/configure-aws-credentials", "v5.0.0", "a03048d87541d1d9fcf2ecf528a4a65ba9bd7838"),
        Pin("azure/login", "v2.3.0", "a457da9ea143d694b1b9c7c869ebb04ebe844ef5"),
        Pin("docker/login-action", "v3.6.0", "5e57cd118135c172c3672efd75eb46360885c0ef"),
        Pin("google-github-actions/auth", "v3.0.0", "7c6bc770dae815cd3e89ee6cdf493a5fab2cc093"),
        Pin("sigstore/cosign-installer", "v3.10.0", "d7543c93d881b35a8faa02e8e3605f69b7a1ce62"),
    )
}
