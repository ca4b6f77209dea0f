"""What holds for all tests: how property tests draw, that none waits for ever, and that a failure is told at once."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from thoroughly import LONGEST_S

# How long an example takes says how busy the machine is. On CI the examples are the same each time, so that a change
# is judged by what it changed; elsewhere they are drawn anew, and find more.
settings.register_profile(
    "mainspring",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mainspring")

# A shell that starts the tests in the background has Ctrl-C ignored, by all that they start, too: and they send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _within(what: str) -> Iterator[None]:
    def over(number: int, frame: object) -> None:
        pytest.fail(f"the {what} takes more than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S, 60)  # again, should something swallow it
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    return (yield from _within("setup"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    return (yield from _within("test"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    return (yield from _within("teardown"))


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
