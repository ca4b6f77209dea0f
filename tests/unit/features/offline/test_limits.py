"""A query of tables stays within the memory that the settings allow, and says the same."""

import numpy as np
import pyarrow as pa
import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.choose.services import port_settings
from mainspring.config.settings import load_settings
from mainspring.errors import ConfigError, StoreError
from mainspring.features.duck import connection
from mainspring.ports.tables import Limits


def test_the_settings_reach_the_engine_and_what_it_spills_is_gone_afterwards(tmp_path):
    tables = open_tables(DeltaSettings(memory="128MiB"), tmp_path)
    assert tables.limits == Limits("128MiB", str(tmp_path / "tables" / ".spill"))
    (tmp_path / "tables").mkdir()
    rows = pa.table({"x": np.random.default_rng(0).permutation(6_000_000), "y": np.arange(6_000_000)})
    with connection(tables.limits) as opened:
        ((limit,),) = opened.sql("select current_setting('memory_limit')").fetchall()
        assert limit == "128.0 MiB"
        opened.execute("create temp table kept as select * from rows order by x")
        used = opened.sql("select sum(size) from duckdb_temporary_files()").fetchall()
        assert used[0][0] > 0, "nothing was spilled, so that the limit was not tried"
        assert opened.sql("select count(*), sum(x * y % 7) from kept").fetchall()[0][0] == 6_000_000
        del rows
    assert not list((tmp_path / "tables" / ".spill").glob("*"))
    assert open_tables(DeltaSettings(), tmp_path).limits == Limits()


def test_a_limit_that_is_no_size_is_refused(tmp_path):
    (tmp_path / "mainspring.toml").write_text('app = "app:app"\n[tables]\nmemory = "much"\n')
    with pytest.raises(ConfigError):
        port_settings("tables", load_settings(tmp_path))


def test_a_query_that_does_not_fit_says_what_to_raise(tmp_path):
    with pytest.raises(StoreError) as caught, connection(Limits("1MiB", str(tmp_path / "spill"))) as opened:
        opened.sql("select list(range) from range(10_000_000)").fetchall()
    assert caught.value.code == "MS-4136"
    assert "tables.memory" in caught.value.fix
