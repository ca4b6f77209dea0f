"""The same rows answer the same questions in the same bytes, from one version of Mainspring to the next."""

import random

import numpy as np
import pytest

from mainspring.declare.aggregate import avg, count, distinct, highest, last, last_n, quantile, stddev, total, variance
from mainspring.declare.frame import Frame
from mainspring.features.logs.digest import content_digest
from mainspring.features.offline.history import ARITHMETIC, history_of
from mainspring.features.windows import pieces
from unit.features.offline.oracle import Row
from unit.features.offline.tables import GRID, Folder, a_view, log_table, spine_table

FEATURES = {
    "px": last("x"),
    "rows": count("20m"),
    "sum": total("x", "1h"),
    "mean": avg("x", "3h"),
    "spread": variance("x", "1h"),
    "sd": stddev("x", "3h"),
    "high": highest("x", "1h"),
    "kinds": distinct("n", "3h"),
    "middle": quantile("x", 0.5, "1h"),
    "newest": last_n("x", 3, "1h"),
}
MADE = {
    2: {
        "whole": "d630fd39fee8ed842b13561e2010629f",
        "stretches": "80c4780ddf2714c605e72b34b620adee",
    }
}
"""By arithmetic, the digests of what is answered below."""


def drawn(size):
    """Rows and questions of which one entity has most; floats whose sums depend on the order they are added in."""
    rng = random.Random(7)
    key = lambda: "a" if rng.random() < 0.8 else rng.choice("bcd")  # noqa: E731
    rows = []
    for number in range(size):
        event = rng.randint(0, size) * GRID // 10
        value = {"x": rng.uniform(-1, 1) * 10.0 ** rng.randint(-6, 6), "n": rng.randint(0, 9)}
        rows.append(Row(key(), event, event + rng.choice([0, 0, GRID]), number, value))
    return rows, [(key(), rng.randint(0, size) * GRID // 10) for _ in range(size)]


@pytest.mark.skipif(np.finfo(np.longdouble).nmant != 63, reason="extended precision is another there")
@pytest.mark.parametrize("cut", ["whole", "stretches"])
def test_the_bytes_are_those_of_this_arithmetic(tmp_path, monkeypatch, cut):
    """Where they are others, raise `ARITHMETIC` and note them: training sets that are kept must be made anew then."""
    monkeypatch.setattr(pieces, "PIECE", pieces.PIECE if cut == "whole" else 100)
    folder, view = Folder(tmp_path), a_view(FEATURES)
    rows, questions = drawn(600)
    folder.write(log_table(view, rows))
    found = history_of(folder, [view], Frame(spine_table(questions)), "at", True, "short", True, {}).arrow()
    assert content_digest(found) == MADE[ARITHMETIC][cut]
