"""The contract of an embedder: derive from `EmbedderContract` and give it your model to open."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.ports.embedder import Embedder

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["EmbedderContract"]

_TEXTS = (
    "The cat sleeps on the sofa.",
    "A kitten naps on the couch.",
    "Quarterly revenue grew by four per cent.",
    "Où est la bibliothèque? 図書館はどこですか。 👩‍👩‍👧",
    "x",
)


class EmbedderContract:
    """What every embedder does.

    A subclass defines the fixture ``embedder``: an open embedder of a model that knows English.
    """

    tolerance = 0.03
    """How far the cosine of one text's two vectors may be from 1: 8-bit models see what they are batched with."""

    def _alike(self, one: object, other: object) -> bool:
        a, b = np.asarray(one), np.asarray(other)
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) > 1 - self.tolerance

    def test_it_is_the_port(self, embedder: Embedder) -> None:
        """It has every method, a name, and sensible sizes."""
        assert isinstance(embedder, Embedder)
        assert embedder.id
        assert embedder.dims > 0
        assert embedder.max_tokens > 2

    def test_vectors_are_rows_in_order(self, embedder: Embedder) -> None:
        """float32 (texts, dims), finite, each text's own whatever its place."""
        vectors = embedder.embed_documents(_TEXTS)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(_TEXTS), embedder.dims)
        assert np.isfinite(vectors).all()
        backwards = embedder.embed_documents(_TEXTS[::-1])[::-1]
        assert all(self._alike(one, other) for one, other in zip(vectors, backwards, strict=True))

    def test_none_and_one(self, embedder: Embedder) -> None:
        """No texts are no rows."""
        assert embedder.embed_documents([]).shape == (0, embedder.dims)
        assert embedder.embed_documents(["one"]).shape == (1, embedder.dims)

    def test_length_one_where_it_says_so(self, embedder: Embedder) -> None:
        """Of documents and of queries, empty texts too."""
        if embedder.normalised:
            lengths = np.linalg.norm(embedder.embed_documents([*_TEXTS, "", " "]), axis=1)
            assert np.allclose(lengths, 1, atol=1e-3)
            assert abs(float(np.linalg.norm(embedder.embed_query(_TEXTS[0]))) - 1) < 1e-3

    def test_alike_is_near(self, embedder: Embedder) -> None:
        """A query is nearer to what means the same than to what does not."""
        near, far = embedder.embed_documents(_TEXTS[1:3])
        query = embedder.embed_query(_TEXTS[0])
        assert query.shape == (embedder.dims,)
        assert float(query @ near) > float(query @ far) + 0.1

    def test_a_query_is_the_same_again(self, embedder: Embedder) -> None:
        """Asked twice, the vector is the same, and what the caller does to one does not change the next."""
        first = embedder.embed_query("again and again").copy()
        assert np.array_equal(first, embedder.embed_query("again and again"))

    def test_many_texts_of_all_lengths(self, embedder: Embedder) -> None:
        """More than a batch, long beside short: each row is its text's."""
        texts = [("word " * (1 + 7 * number % 90)) + str(number) for number in range(150)]
        together = embedder.embed_documents(texts)
        for place in (0, 1, 77, 149):
            assert self._alike(together[place], embedder.embed_documents([texts[place]])[0])

    def test_counting_cuts_nothing(self, embedder: Embedder) -> None:
        """A long text counts in full, and more text is never fewer tokens."""
        counts = embedder.count(["word " * number for number in (1, 100, 2000)])
        assert counts == sorted(counts)
        assert counts[2] >= 2000
        assert embedder.count([]) == []

    def test_the_tail_beyond_the_limit_is_not_seen(self, embedder: Embedder) -> None:
        """A text at the limit has the vector of the same text with more behind it."""
        if not embedder.tokenizer:
            return
        text = "wing " * (embedder.max_tokens * 2)
        both = embedder.embed_documents([text, text + "sofa " * 500])
        assert self._alike(both[0], both[1])

    def test_threads_share_it(self, embedder: Embedder) -> None:
        """Each gets its own answers."""
        expected = embedder.embed_documents(_TEXTS)
        wrong: list[int] = []

        def use(place: int) -> None:
            for _ in range(5):
                if not self._alike(embedder.embed_documents([_TEXTS[place]])[0], expected[place]):
                    wrong.append(place)

        threads = [threading.Thread(target=use, args=(place,)) for place in range(len(_TEXTS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not wrong
