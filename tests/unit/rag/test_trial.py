"""The trial of vector stores: which are tried, on which rows, and what is left of it."""

import numpy as np
import pytest

from mainspring.choose.services import Services
from mainspring.errors import ConfigError, ServiceError, UsageError
from mainspring.ports.vector_store import Hits, Note, Page, Stored
from mainspring.rag.choosing import Rows, compare
from mainspring.rag.trial import _opened, _sampled, candidates, held_out
from mainspring.testing.vector_oracle import clustered, id_of


def services_of(folder, toml=""):
    (folder / "mainspring.toml").write_text(f'app = "a:app"\n{toml}')
    return Services.of_project(folder)


def test_embedded_stores_and_those_that_any_profile_has(tmp_path, monkeypatch):
    monkeypatch.delenv("TRIAL_NOT_SET", raising=False)
    toml = '[vectors]\nadapter = "zvec"\nm = 24\n[profiles.prod]\nvectors.adapter = "pgvector"\n'
    toml += 'vectors.url = "postgresql://db/x"\n'
    found = candidates(services_of(tmp_path, toml))
    by_name = {one.adapter.name: one for one in found.found}
    assert set(by_name) == {"qdrant_edge", "zvec", "pgvector"}
    assert by_name["zvec"].settings.m == 24, "measured as it is configured"
    assert by_name["qdrant_edge"].settings.m == 16
    assert found.left_out == {"qdrant": "no profile has its url: --store qdrant=qdrant://..."}


def test_a_profile_whose_secret_is_not_here_is_told_as_that(tmp_path, monkeypatch):
    monkeypatch.delenv("TRIAL_NOT_SET", raising=False)
    toml = '[profiles.prod]\nvectors.adapter = "pgvector"\nvectors.url = "env:TRIAL_NOT_SET"\n'
    found = candidates(services_of(tmp_path, toml))
    assert found.left_out["pgvector"] == "secret env:TRIAL_NOT_SET of vectors.url is not there: the variable is not set"


def test_urls_that_are_given(tmp_path, monkeypatch):
    services = services_of(tmp_path, "[vectors]\nsearch_threads = 3\n")
    monkeypatch.setenv("TRIAL_URL", "postgresql://u:secret@db/x")
    found = {one.adapter.name: one for one in candidates(services, {"pgvector": "env:TRIAL_URL"}).found}
    assert found["pgvector"].settings.url == "postgresql://u:secret@db/x", "another store's keys are not in its way"
    for given, code in (
        ({"pgvektor": "postgresql://db"}, "MS-2694"),
        ({"zvec": "x"}, "MS-2698"),
        ({"pgvector": "http://db"}, "MS-2699"),
    ):
        with pytest.raises(UsageError) as told:
            candidates(services, given)
        assert told.value.code == code
        assert told.value.fix
    monkeypatch.delenv("TRIAL_URL")
    with pytest.raises(ConfigError):
        candidates(services, {"pgvector": "env:TRIAL_URL"})


def test_what_is_missing_is_said_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("mainspring.rag.trial.is_installed", lambda module: module != "zvec")
    found = candidates(services_of(tmp_path))
    assert found.left_out["zvec"] == "zvec missing: pip install 'mainspring[zvec]'"


def rows_of(count, dims=16):
    return Rows([id_of(n) for n in range(count)], clustered(count, dims), [f"The row, w{n}!" for n in range(count)])


def test_questions_are_held_out_when_there_are_rows_enough():
    rows = rows_of(1000)
    kept, questions, apart = held_out(rows)
    assert apart
    assert (len(kept.ids), len(questions.vectors), len(questions.words)) == (900, 100, 100)
    by_vector = {vector.tobytes(): text for vector, text in zip(rows.vectors, rows.texts, strict=True)}
    assert not {vector.tobytes() for vector in kept.vectors} & {vector.tobytes() for vector in questions.vectors}
    for vector, words in zip(questions.vectors, questions.words, strict=True):
        assert by_vector[vector.tobytes()].replace(",", "").replace("!", "") == words
    for place, text in enumerate(kept.texts):
        assert by_vector[kept.vectors[place].tobytes()] == text
    few = rows_of(5)
    kept, questions, apart = held_out(few)
    assert not apart
    assert list(kept.ids) == list(few.ids)
    assert len(questions.vectors) == 5


def test_a_row_without_words_leaves_words_out_of_all_questions():
    rows = Rows([id_of(0), id_of(1)], clustered(2, 8), ["words", "..."])
    assert held_out(rows)[1].words == ()


class Paged:
    """A store of which pages are read."""

    def __init__(self, count):
        self.rows = rows_of(count)

    def scroll(self, index, filter, cursor, limit, *, fields, vectors):
        start, rows = int(cursor or 0), self.rows
        end = min(start + limit, len(rows.ids))
        points = [Stored(rows.ids[n], {"text": rows.texts[n]}, rows.vectors[n]) for n in range(start, end)]
        return Page(tuple(points), str(end) if end < len(rows.ids) else None)


def test_a_sample_is_even_and_the_same_every_time():
    store, told = Paged(25_000), []
    rows = _sampled(store, "x", 25_000, 1000, told.append)
    assert len(rows.ids) == len(set(rows.ids)) == 1000
    assert list(rows.ids) == list(_sampled(store, "x", 25_000, 1000, told.append).ids)
    places = {one: n for n, one in enumerate(store.rows.ids)}
    halves = np.array([places[one] for one in rows.ids]) >= 12_500
    assert 0.4 < halves.mean() < 0.6
    assert "10,000 of 25,000 rows read" in told
    whole = _sampled(store, "x", 25_000, 25_000, told.append)
    assert list(whole.ids) == list(store.rows.ids)
    assert np.array_equal(whole.vectors, store.rows.vectors)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 30])
def test_few_rows_are_compared_too(tmp_path, count):
    services = services_of(tmp_path)
    with _opened(services.state, candidates(services)) as (stores, failed):
        report = compare({"qdrant_edge": stores["qdrant_edge"]}, rows_of(count), clustered(3, 16, 5), rounds=1)
    (one,) = report.measured
    assert not failed
    assert one.plain.recall == one.filtered.recall == 1.0
    assert (one.plain.asked_for, one.filtered.asked_for) == (min(10, count), 1)


def test_the_folders_are_gone_whatever_happens(tmp_path):
    services = services_of(tmp_path)
    opened = _opened(services.state, candidates(services))
    stores, _ = opened.__enter__()
    assert set(stores) == {"qdrant_edge", "zvec"}
    assert list(services.state.glob("bench-*"))
    assert not opened.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert not list(services.state.glob("bench-*"))


class Broken:
    """A store that cannot be written to."""

    def create(self, index, schema):
        raise ServiceError("the database does not answer", code="MS-4180", why="refused", fix="start it")

    def drop(self, index):
        pass


class Short:
    """Passes everything on, and answers with one hit less and a note."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def search(self, index, query):
        found = self._store.search(index, query)
        return Hits(found.hits[:-1], False, (Note("fewer_than_k", "the graph ended"),))


def test_a_store_that_fails_does_not_end_the_others(tmp_path):
    services = services_of(tmp_path)
    with _opened(services.state, candidates(services)) as (stores, _):
        both = {"broken": Broken(), "short": Short(stores["qdrant_edge"])}
        report = compare(both, rows_of(50), clustered(3, 16, 5), rounds=1)
        alone = compare({"broken": Broken()}, rows_of(50), clustered(3, 16, 5), rounds=1)
    assert report.failed == {"broken": "the database does not answer: refused"}
    (one,) = report.measured
    assert (one.plain.complete, one.plain.why_fewer) == (0.0, "the graph ended")
    assert (alone.measured, alone.recommended, alone.why) == ((), "", ("no store could be measured",))
