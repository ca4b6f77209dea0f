"""What holds for all tests: how property tests draw their examples, and that a failure is told at once."""

import os

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. On CI the examples are the same each time, so that a change
# is judged by what it changed; elsewhere they are drawn anew, and find more.
settings.register_profile(
    "mainspring",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mainspring")


class _Telling:
    """Says what failed when it does: a run that is ended from outside never comes to its summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"{report.when} of {report.nodeid} failed: {report.longreprtext[-2000:]}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") and not os.environ.get("PYTEST_XDIST_WORKER"):
        config.pluginmanager.register(_Telling(config))
