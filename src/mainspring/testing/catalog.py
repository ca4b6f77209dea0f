"""The contract of the catalog: derive from `CatalogContract` and give it your adapter to open."""

from __future__ import annotations

import functools
import threading

from mainspring.ports.catalog import Catalog, Event
from mainspring.testing.catalog_entities import EntityContract
from mainspring.testing.catalog_events import EventContract
from mainspring.testing.catalog_monitoring import MonitoringContract
from mainspring.testing.catalog_rows import Opening, an_event
from mainspring.testing.catalog_runs import RunContract

__all__ = ["CatalogContract"]


class CatalogContract(RunContract, EntityContract, EventContract, MonitoringContract):
    """What every catalog does.

    A subclass defines two fixtures: ``opening``, a function that opens the same, at first empty, catalog each time it
    is called and can be pickled, and ``crew``, a `Crew` of four (of the module: it is costly to start).
    """

    def test_it_is_the_port(self, opening: Opening) -> None:
        """It has every method."""
        assert isinstance(opening(), Catalog)

    def test_closing_is_for_oneself(self, opening: Opening) -> None:
        """Others go on, closing again is nothing, and what was written is there."""
        left, right = opening(), opening()
        left.add_event(an_event(1))
        left.close()
        left.close()
        right.add_event(an_event(2))
        right.close()
        assert [event.at for event in opening().events()] == [1, 2]

    def test_threads_share_one_catalog(self, opening: Opening) -> None:
        """Four threads write and read through one object and lose nothing."""
        catalog, failed = opening(), list[BaseException]()

        def work(number: int) -> None:
            try:
                for at in range(10):
                    catalog.add_event(Event(at, f"t{number}", "x", "/"))
                    assert catalog.events()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=functools.partial(work, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(catalog.events()) == 40
