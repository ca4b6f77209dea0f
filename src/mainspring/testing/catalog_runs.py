"""The contract of the catalog: runs, steps, cache and claims."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from mainspring.ports.catalog import Artifact, CacheRow, Catalog, Edge, Event, OutputRow, Run, StepRow, StepStatus
from mainspring.testing.catalog_rows import Opening, a_commit, a_run, a_step
from mainspring.testing.crew import Crew

__all__ = ["RunContract"]

ENDS: tuple[StepStatus, ...] = ("failed", "lost", "unknown", "stopped")


class RunContract:
    """Runs, steps, cache and claims."""

    def test_a_run_comes_back_as_it_began(self, opening: Opening) -> None:
        """With its texts and objects, for every client; one that is not there is none."""
        run = Run(
            "a" * 32, "é", "running", 5, None, "by hand", {"lr": 0.1, "days": ["x", None]}, {"lock": "l"}, "me", 2**53
        )
        opening().start_run(run)
        assert opening().run(run.id) == run
        assert opening().run("b" * 32) is None
        assert opening().steps(run.id) == []

    def test_runs_newest_first(self, opening: Opening) -> None:
        """Of a pipeline, of a status, so many."""
        catalog = opening()
        runs = [a_run(n, pipeline="even" if n % 2 == 0 else "odd") for n in range(6)]
        for run in (runs[3], runs[0], runs[5], runs[1], runs[4], runs[2]):
            catalog.start_run(run)
        assert catalog.end_run(runs[4].id, "driver", "failed", 9)
        assert [run.started for run in catalog.runs()] == [5, 4, 3, 2, 1, 0]
        assert [run.started for run in catalog.runs(limit=2)] == [5, 4]
        assert [run.started for run in catalog.runs(pipeline="even")] == [4, 2, 0]
        assert [run.started for run in catalog.runs(pipeline="even", status="running", limit=1)] == [2]
        assert catalog.runs(pipeline="other") == []

    def test_a_lease_is_its_owners(self, opening: Opening) -> None:
        """Only the owner renews it, and only while the run goes on."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        assert not catalog.renew_lease(run.id, "other", 5000)
        assert catalog.renew_lease(run.id, "driver", 2000)
        assert opening().run(run.id) == replace(run, lease_until=2000)
        assert catalog.end_run(run.id, "driver", "ok", 30)
        assert not catalog.renew_lease(run.id, "driver", 3000)
        assert not catalog.renew_lease("f" * 32, "driver", 3000)

    def test_a_run_ends_once(self, opening: Opening) -> None:
        """By its owner; what came first stays."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        assert not catalog.end_run(run.id, "other", "failed", 20)
        assert catalog.end_run(run.id, "driver", "ok", 30)
        assert not catalog.end_run(run.id, "driver", "failed", 40)
        assert opening().run(run.id) == replace(run, status="ok", ended=30)
        assert not catalog.take_over(run.id, "other", 9999, 10000)

    def test_an_expired_run_is_taken_over(self, opening: Opening) -> None:
        """Not before; its running steps become lost, finished ones stay; then it is the taker's alone."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        for idx in range(3):
            catalog.start_attempt(a_step(run, idx))
        assert catalog.commit_step(a_commit(a_step(run, 0)))
        assert catalog.end_attempt(replace(a_step(run, 1), status="failed", ended=15))
        assert not catalog.take_over(run.id, "taker", 999, 5000)
        assert catalog.take_over(run.id, "taker", 1001, 5000)
        assert not catalog.take_over(run.id, "third", 1001, 5000)
        assert [(row.status, row.ended) for row in opening().steps(run.id)] == [
            ("ok", 20),
            ("failed", 15),
            ("lost", 1001),
        ]
        assert not catalog.renew_lease(run.id, "driver", 9000)
        assert not catalog.end_run(run.id, "driver", "ok", 9000)
        assert catalog.end_run(run.id, "taker", "failed", 2000)

    def test_racing_takers(self, opening: Opening, crew: Crew) -> None:
        """Of four drivers exactly one takes each run."""
        catalog = opening()
        for number in range(20):
            catalog.start_run(a_run(number))
        taken = crew.together(_take_runs, opening)
        assert sorted(number for numbers in taken for number in numbers) == list(range(20))
        for member, numbers in enumerate(taken):
            assert all(run.lease_owner == f"m{member}" for run in catalog.runs() if run.started in numbers)

    def test_attempts_in_order(self, opening: Opening) -> None:
        """By step, map item and attempt; each as it was recorded."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        full = StepRow(
            run.id,
            2,
            -1,
            1,
            "é",
            "hit",
            "k",
            3,
            4,
            "why",
            "log",
            "note",
            (OutputRow("a", "d", "k", 2**40),),
            {"x": [1]},
        )
        rows = [a_step(run, 0), a_step(run, 0, 0, 2), a_step(run, 0, 1), a_step(run, 1), full]
        catalog.record_steps([full])
        for row in reversed(rows[:-1]):
            catalog.start_attempt(row)
        assert opening().steps(run.id) == rows

    def test_a_commit_records_all(self, opening: Opening) -> None:
        """The attempt, its cache row, artifacts, edges and event, seen together by others."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        catalog.start_attempt(a_step(run))
        commit = a_commit(a_step(run))
        own = CacheRow("key0", commit.row.outputs, run.id, 0, 0)
        assert catalog.commit_step(commit) == own
        other = opening()
        assert other.steps(run.id) == [commit.row]
        assert other.cached(["key0"]) == {"key0": own}
        assert other.artifacts(["a" * 40]) == {"a" * 40: commit.artifacts[0]}
        assert other.lineage("a" * 40, "up") == list(commit.edges)
        assert [(event.what, event.data) for event in other.events()] == [("step.ok", {"mark": "a"})]

    def test_a_commit_happens_once(self, opening: Opening) -> None:
        """Again, or for an attempt that never began, it records nothing at all."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        catalog.start_attempt(a_step(run))
        first = a_commit(a_step(run))
        assert catalog.commit_step(first)
        for commit in (a_commit(a_step(run), mark="b"), a_commit(a_step(run, attempt=2), mark="b")):
            assert catalog.commit_step(commit) is None
        assert _traces(catalog, "b") == ([], {}, [])
        assert catalog.steps(run.id) == [first.row]
        assert len(catalog.events()) == 1

    def test_a_lost_driver_cannot_commit(self, opening: Opening) -> None:
        """Nor one that never had the lease, nor after the end; nothing of it is recorded."""
        catalog = opening()
        runs = [a_run(number) for number in range(3)]
        for run in runs:
            catalog.start_run(run)
            catalog.start_attempt(a_step(run))
        assert catalog.take_over(runs[0].id, "taker", 2000, 3000)
        assert catalog.end_run(runs[1].id, "driver", "stopped", 30)
        owners = ("driver", "driver", "stranger")
        for run, owner in zip(runs, owners, strict=True):
            assert catalog.commit_step(a_commit(a_step(run), owner)) is None
        assert _traces(catalog, "a") == ([], {}, [])
        assert catalog.cached(["key0"]) == {}
        assert [catalog.steps(run.id)[0].status for run in runs] == ["lost", "running", "running"]

    def test_the_first_result_of_a_key_stands(self, opening: Opening) -> None:
        """The second to commit is told the winner's, and its own attempt is still ok."""
        catalog, runs = opening(), [a_run(1), a_run(2)]
        for run in runs:
            catalog.start_run(run)
            catalog.start_attempt(a_step(run))
        won = catalog.commit_step(a_commit(a_step(runs[0]), mark="a"))
        assert won is not None
        assert opening().commit_step(a_commit(a_step(runs[1]), mark="b")) == won
        assert catalog.cached(["key0"]) == {"key0": won}
        assert catalog.steps(runs[1].id) == [a_commit(a_step(runs[1]), mark="b").row]

    def test_a_commit_without_cache(self, opening: Opening) -> None:
        """Leaves no cache row."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        catalog.start_attempt(a_step(run))
        found = catalog.commit_step(replace(a_commit(a_step(run)), cache=False))
        assert found is not None
        assert found.outputs[0].digest == "a" * 40
        assert catalog.cached(["key0"]) == {}
        assert catalog.steps(run.id)[0].status == "ok"

    def test_a_status_moves_only_forward(self, opening: Opening) -> None:
        """Out of running, once; then it is neither ended nor committed any more."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        for idx, status in enumerate(ENDS):
            row = a_step(run, idx)
            catalog.start_attempt(row)
            ended = replace(row, status=status, ended=30, error="so", log_digest="log", note="n")
            assert catalog.end_attempt(ended)
            for later in ENDS:
                assert not catalog.end_attempt(replace(row, status=later, ended=40))
            assert catalog.commit_step(a_commit(row)) is None
            assert opening().steps(run.id)[idx] == ended
        catalog.start_attempt(a_step(run, 9))
        assert catalog.commit_step(a_commit(a_step(run, 9)))
        assert not catalog.end_attempt(replace(a_step(run, 9), status="lost", ended=40))
        assert not catalog.end_attempt(replace(a_step(run, 10), status="lost", ended=40))
        assert catalog.steps(run.id)[-1] == a_commit(a_step(run, 9)).row

    def test_hits_of_one_transaction(self, opening: Opening) -> None:
        """Many rows at once; a step's history goes over the runs, the newest first."""
        catalog, runs = opening(), [a_run(1), a_run(2)]
        for run in runs:
            catalog.start_run(run)
            rows = [replace(a_step(run, 0, n), status="hit", started=100 * run.started + n) for n in range(300)]
            catalog.record_steps([*rows, replace(a_step(run, 1), status="skipped")])
        catalog.record_steps([])
        assert len(catalog.steps(runs[1].id)) == 301
        assert [row.started for row in catalog.step_history("step0", limit=3)] == [499, 498, 497]
        assert [row.status for row in catalog.step_history("step1")] == ["skipped", "skipped"]
        assert catalog.step_history("none") == []

    def test_cache_rows_by_key(self, opening: Opening) -> None:
        """Many keys at once; what is not there is left out; a forgotten key can be made anew."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        for idx in range(3):
            catalog.start_attempt(a_step(run, idx))
            assert catalog.commit_step(a_commit(a_step(run, idx)))
        keys = [f"key{n % 1500}" for n in range(3000)]
        assert sorted(catalog.cached(iter(keys))) == ["key0", "key1", "key2"]
        assert catalog.cached([]) == {}
        catalog.forget(iter(["key1", "none"]))
        assert sorted(opening().cached(keys)) == ["key0", "key2"]
        catalog.start_attempt(a_step(run, 5, key="key1"))
        assert catalog.commit_step(a_commit(a_step(run, 5, key="key1"), mark="b"))
        assert catalog.cached(["key1"])["key1"].outputs[0].digest == "b" * 40

    def test_an_artifact_is_recorded_once(self, opening: Opening) -> None:
        """The first account of a content stays."""
        catalog, run = opening(), a_run(1)
        catalog.start_run(run)
        first = Artifact("d", "frame", 2**40, meta={"rows": 7})
        for idx, artifact in enumerate((first, Artifact("d", "other", 1))):
            catalog.start_attempt(a_step(run, idx))
            assert catalog.commit_step(replace(a_commit(a_step(run, idx)), artifacts=(artifact,)))
        assert catalog.artifacts(iter(["d", "d", "none"])) == {"d": first}

    def test_a_claim_is_one_owners(self, opening: Opening) -> None:
        """Until it expires or is given back by the owner; the owner may extend it."""
        catalog, other = opening(), opening()
        assert catalog.claim("k", "a", 0, 100) == "a"
        assert other.claim("k", "b", 99, 500) == "a"
        assert catalog.claim("k", "a", 99, 200) == "a"
        assert other.claim("k", "b", 199, 500) == "a"
        assert other.claim("k", "b", 201, 500) == "b"
        assert catalog.claim("k", "a", 202, 900) == "b"
        catalog.release("k", "a")
        assert catalog.claim("k", "a", 203, 900) == "b"
        other.release("k", "b")
        assert catalog.claim("k", "a", 204, 900) == "a"
        assert catalog.claim("free", "b", 0, 1) == "b"

    def test_a_once_claim_outlives_its_time(self, opening: Opening) -> None:
        """Even when its owner extends it without saying so, or it follows one that was not; only release ends it."""
        catalog = opening()
        assert catalog.claim("k", "a", 0, 100, once=True) == "a"
        assert catalog.claim("k", "a", 50, 200) == "a"
        assert catalog.claim("k", "b", 10**9, 2 * 10**9) == "a"
        assert catalog.claim("k", "b", 10**9, 2 * 10**9, once=True) == "a"
        catalog.release("k", "a")
        assert catalog.claim("k", "b", 0, 100) == "b"
        assert catalog.claim("k", "c", 101, 200, once=True) == "c"
        assert catalog.claim("k", "a", 10**9, 2 * 10**9) == "c"

    def test_racing_claimants(self, opening: Opening, crew: Crew) -> None:
        """Four processes are told the same owner of each key, expired ones included."""
        catalog = opening()
        for number in range(0, 30, 2):
            catalog.claim(f"k{number}", "dead", 0, 10)
        told = crew.together(_claim_keys, opening)
        assert told[0] == told[1] == told[2] == told[3]
        assert set(told[0]) <= {"m0", "m1", "m2", "m3"}


def _traces(catalog: Catalog, mark: str) -> tuple[list[Edge], Mapping[str, Artifact], list[Event]]:
    digest = mark * 40
    told = [event for event in catalog.events() if event.data.get("mark") == mark]
    return catalog.lineage(digest, "up"), catalog.artifacts([digest]), told


def _take_runs(opening: Opening, member: int) -> list[int]:
    catalog = opening()
    return [n for n in range(20) if catalog.take_over(a_run(n).id, f"m{member}", 1001 + member, 10**6)]


def _claim_keys(opening: Opening, member: int) -> list[str]:
    catalog = opening()
    return [catalog.claim(f"k{n}", f"m{member}", 100, 10**6) for n in range(30)]
