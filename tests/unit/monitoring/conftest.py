"""Tables of event time and one or more columns, day after day."""

import numpy as np
import pyarrow as pa
import pytest

DAY = 86_400_000_000
MONDAY = 19_723 * DAY  # 2024-01-01


@pytest.fixture
def days():
    """A function from columns of days x rows values to a table, `first` days after 2024-01-01."""

    def make(rows, first=0, **columns):
        size = len(next(iter(columns.values())))
        times = MONDAY + (first + np.arange(size) // rows) * DAY + np.arange(size) % rows
        return pa.table({"at": pa.array(times, pa.timestamp("us", "UTC")), **columns})

    return make
