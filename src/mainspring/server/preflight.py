"""What can be known before anything runs: adapters and their settings, files, secrets, what the listeners take."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.choose.services import Services, port_settings
from mainspring.config.settings import Settings, reveal
from mainspring.features.steps import files_of
from mainspring.plan.graph import Plan
from mainspring.server.listening import api_keys, exposed_pages, management_keys
from mainspring.server.planning import needed_ports, sources_have_places

__all__ = ["preflight"]


def preflight(services: Services, plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Refuse what ``apply`` or ``serve`` would refuse of the settings; nothing is opened, written or called.

    Args:
        services: the project's ports, none of which is opened.
        plan: the app's graph.

    Returns:
        The adapters that serve each port which the plan needs.

    Raises:
        ConfigError: MS-3007, MS-3010 to MS-3015, MS-3020 to MS-3022.
        DataError: MS-2112, a source's path leads to no file.
    """
    settings = services.settings
    sources_have_places(plan, settings)
    for node in plan.of_kind("source"):
        files_of(node.name, settings)
    chosen = {port: tuple(port_settings(port, settings)) for port in needed_ports(plan)}
    _secrets_are_there(settings)
    _listeners_can_open(settings)
    return chosen


def _secrets_are_there(settings: Settings) -> None:
    for setting in settings.values.values():
        for reference in setting.references():
            reveal(reference, settings.project)


def _listeners_can_open(settings: Settings) -> None:
    api_keys(settings)
    if settings.flag("management.enabled"):
        exposed_pages(settings)
        management_keys(settings)
