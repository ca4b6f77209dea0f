"""Heavy libraries are imported when they are used, and pandas when somebody uses pandas."""

import subprocess
import sys

_LATER = """
import importlib.util
import sys

from mainspring.lazy import lazy

pa = lazy("pyarrow")
column = pa.chunked_array([pa.nulls(3, pa.float64())])
assert pa.table(pa.table({"a": column}).to_reader()).num_rows == 3
assert not pa.lib._pandas_api.is_series(column) and "pandas" not in sys.modules
assert importlib.util.find_spec("pandas") is not None and "pandas" not in sys.modules

import numpy as np
import pandas as pd

gap = [1.0, np.nan]
print(pa.array(pd.Series(gap)).null_count, pa.array(np.array(gap)).null_count)
print(pa.table(pd.DataFrame({"a": gap})).column("a").null_count, pa.table({"a": gap}).to_pandas()["a"].isna().sum())
"""


def test_arrow_brings_no_pandas_and_knows_it_once_somebody_has_imported_it() -> None:
    done = subprocess.run([sys.executable, "-c", _LATER], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "0", "1", "1"]), done.stderr


def test_a_frame_of_pandas_is_made_without_importing_it_first() -> None:
    code = (
        "from mainspring.lazy import lazy\npa = lazy('pyarrow')\nprint(len(pa.table({'a': pa.nulls(2)}).to_pandas()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["2"]), done.stderr
