"""What is said about reached code: clocks, draws, and texts that may name files."""

import datetime as dt
import random
import time
from datetime import datetime
from pathlib import Path
from random import randint

import numpy as np
import polars as pl

from mainspring.plan.closure import closure_of

TABLE = "data/rates.csv"
FOLDER = Path("data/years.parquet")


def stamped():
    return datetime.now()


def stamped_by_module():
    return dt.datetime.now(), dt.date.today(), time.time()


def stamped_inside():
    from time import time_ns

    return time_ns()


def drawn():
    return random.random(), randint(1, 6), np.random.rand(3)


def seeded():
    random.seed(7)
    return drawn()


def helped():
    return stamped()


def reads():
    """Not data/doc.csv"""
    return pl.read_csv(TABLE), pl.read_parquet(FOLDER), pl.read_csv("data/here.csv", separator=";")


def asks():
    import duckdb

    return duckdb.sql("select * from read_csv('data/asked.csv') where x = 'a'")


def said(function, kind):
    return {remark.what for remark in closure_of(function).remarks if remark.kind == kind}


def test_a_clock_is_found_however_it_is_named():
    assert said(stamped, "clock") == {"datetime.datetime.now"}
    assert said(stamped_by_module, "clock") == {"datetime.datetime.now", "datetime.date.today", "time.time"}
    assert said(stamped_inside, "clock") == {"time.time_ns"}
    assert said(helped, "clock") == {"datetime.datetime.now"}
    assert said(drawn, "clock") == set()


def test_a_draw_and_a_seed_are_found():
    assert said(drawn, "random") == {"random.random", "random.randint", "numpy.random.rand"}
    assert said(seeded, "seeds") == {"random.seed"}
    assert said(stamped, "random") == set()


def test_texts_that_may_name_files_are_found_and_docstrings_are_not():
    assert said(reads, "text") == {"data/rates.csv", "data/years.parquet", "data/here.csv"}
    assert "data/asked.csv" in said(asks, "text")
    assert closure_of(reads).native
    assert not closure_of(stamped).native


def test_remarks_say_where_and_are_no_part_of_the_key():
    (remark,) = closure_of(stamped).remarks
    assert remark.place == f"test_remarks.py:{stamped.__code__.co_firstlineno}"
    found = closure_of(reads)
    assert {remark.place for remark in found.remarks if remark.what == TABLE} == {f"{__name__}:TABLE"}
