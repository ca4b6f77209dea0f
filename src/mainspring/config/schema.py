"""Every setting of Mainspring itself: its key, type, default and meaning; docs/settings.md lists the same."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PORTS", "SETTINGS", "SettingSpec"]

PORTS = ("catalog", "objects", "tables", "online", "runtime", "converter", "compute")
"""The ports; ``PORT.adapter`` names an adapter, ``PORT.url`` says where it is, other keys are the adapter's own."""


@dataclass(frozen=True, slots=True)
class SettingSpec:
    """A setting: ``*`` in its key stands for a name of the app's."""

    key: str
    type: type
    default: object
    meaning: str


SETTINGS: tuple[SettingSpec, ...] = (
    SettingSpec("app", str, "", "the app: module:variable, the module relative to the project's folder"),
    SettingSpec("sources.*.path", str, None, "file, folder or glob of a source, relative to the project"),
    SettingSpec("sources.*.url", str, None, "where a source is, when it is no local file"),
    SettingSpec("sources.*.format", str, None, "parquet, csv, json or arrow, when the file's name does not say"),
    SettingSpec("sources.*.truncate", str, None, '"us" cuts nanoseconds off times instead of refusing them'),
    SettingSpec("server.host", str, "127.0.0.1", "address the endpoints listen on"),
    SettingSpec("server.port", int, 8080, "port the endpoints listen on; 0 takes a free one"),
    SettingSpec("server.max_body", int, 8_388_608, "greatest request body, in bytes"),
    SettingSpec("server.max_rows", int, 65_536, "most rows in one request"),
    SettingSpec("server.queue", int, 1024, "most requests under way at once; beyond it the answer is 429"),
    SettingSpec("server.drain", float, 25.0, "seconds that open requests may take after SIGTERM"),
    SettingSpec("server.timeout", float, 30.0, "seconds that a request may take"),
    SettingSpec("server.keys", list, [], "API keys as secret references; empty leaves the endpoints open"),
    SettingSpec(
        "serving.replay",
        bool,
        False,
        'whether a request may set its own moment with "now", and a label may be dated ahead',
    ),
    SettingSpec("management.enabled", bool, False, "whether the management listener (actuator, console) runs"),
    SettingSpec("management.host", str, "127.0.0.1", "address of the management listener"),
    SettingSpec("management.port", int, 8081, "port of the management listener; 0 takes a free one"),
    SettingSpec("management.expose", list, ["health"], "actuator pages shown over HTTP"),
    SettingSpec(
        "management.token",
        str,
        None,
        "secret reference: what all of the listener but health needs; beyond loopback it must be set",
    ),
    SettingSpec("console.enabled", bool, False, "whether the management listener shows the console"),
    SettingSpec("engine.workers", int, 0, "steps run at once; 0 is one a core"),
    SettingSpec("monitoring.every", float, 1.0, "seconds between two looks at the prediction log"),
)
"""The settings, in the order the docs show them."""
