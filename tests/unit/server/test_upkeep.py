"""What a server does again and again, when it cannot be done for a while."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

from mainspring.errors import StoreError
from mainspring.server.upkeep import Faults, Upkeep


class _Upkeep(Upkeep):
    """Without a server's state: what it does is given."""

    def __init__(self, told: list[str]) -> None:
        super().__init__(*cast("Any", (None,) * 5), leads=True, told=told.append)

    async def repeat(self, action: Any, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._every(0.001, action), seconds)


def test_a_catalog_that_is_away_is_told_once_and_not_four_times_a_second() -> None:
    told: list[str] = []
    calls: list[int] = []

    def refresh() -> None:
        calls.append(1)
        raise StoreError("the catalog does not answer", code="MS-4101", fix="start it")

    asyncio.run(_Upkeep(told).repeat(refresh, 0.5))
    assert len(calls) > 10
    assert told == ["error MS-4101  the catalog does not answer\n  fix    start it"]


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_fault_that_lasts_is_told_again_each_minute_and_so_is_its_end() -> None:
    told: list[str] = []
    clock = _Clock()
    faults = Faults(told.append, "fire", clock)
    for clock.now in range(150):
        faults.came("away")
    clock.now = 150
    faults.over()
    faults.over()
    clock.now = 300
    faults.came("away")
    first = ["away", "fire, for 60 s now: away", "fire, for 120 s now: away", "fire: done again, after 150 s"]
    assert told == [*first, "away"]


def test_a_fault_that_comes_and_goes_is_not_told_each_time() -> None:
    told: list[str] = []
    clock = _Clock()
    faults = Faults(told.append, "fire", clock)
    for clock.now in range(50):
        faults.came("away")
        faults.over()
    assert told == ["away"]
