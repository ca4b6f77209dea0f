"""Steps and pipelines by the real command line: what is kept, what is refused, and which line an error names."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from e2e.conftest import mainspring
from mainspring.choose.services import Services

HEAD = """
import os
import signal
import time
from datetime import datetime
from functools import partial
from pathlib import Path

import duckdb
import polars as pl
from polars import read_parquet

from mainspring import App, current

app = App("work")
HIDDEN = partial(read_parquet)
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "mainspring.toml").write_text('app = "work:app"\n')

    def write(body: str) -> Path:
        (tmp_path / "work.py").write_text(HEAD + body)
        return tmp_path

    return write


def line_of(project: Path, text: str) -> str:
    """The place of the first line of work.py that holds a text."""
    lines = (project / "work.py").read_text().splitlines()
    return f"work.py:{next(number for number, line in enumerate(lines, 1) if text in line)}"


READS = """
@app.step()
def queried() -> int:
    return duckdb.connect().execute("select sum(x) from 'data/f.csv'").fetchone()[0]

@app.step()
def by_keyword() -> int:
    return pl.read_csv(source="data/f.csv")["x"].sum()

@app.step()
def bound_by_name() -> int:
    return read_parquet("data/f.parquet")["x"].sum()

@app.step()
def out_of_sight() -> int:
    return HIDDEN("data/f.parquet")["x"].sum()

@app.step()
def looked_at() -> int:
    return 6 if Path("data/more").exists() else 3

@app.step()
def together(values: list[int]) -> list[int]:
    return values

@app.pipeline
def everything():
    return together([queried(), by_keyword(), bound_by_name(), out_of_sight(), looked_at()])
"""


def test_what_native_code_reads_is_told_and_never_stale(project):
    root = project(READS)
    (root / "data").mkdir()
    for values in ([1, 2], [1, 2, 3]):
        frame = pl.DataFrame({"x": values})
        frame.write_csv(root / "data" / "f.csv")
        frame.write_parquet(root / "data" / "f.parquet")
        done = mainspring("run", "everything", cwd=root)
        for name in ("queried", "by_keyword", "bound_by_name", "out_of_sight", "looked_at"):
            (line,) = [line for line in done.stderr.splitlines() if f"] {name} done" in line]
            assert "not kept for other runs" in line
            assert f"{root}/data/" in line
        assert json.loads(done.stdout.splitlines()[-1]) == [sum(values)] * 5
        (root / "data" / "more").touch()


def test_a_clock_is_pointed_out_and_its_result_kept(project):
    root = project("@app.step()\ndef stamped() -> str:\n    return str(datetime.now())\n")
    first, second = (mainspring("run", "stamped", cwd=root) for _ in range(2))
    assert f"{line_of(root, '@app.step')} asks the clock (datetime.datetime.now)" in first.stderr
    assert "stamped unchanged" in second.stderr
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1]


def test_a_draw_is_pointed_out_unless_it_is_seeded(project):
    body = "def drawn() -> float:\n    import random\n    return random.random()\n"
    assert "draws at random (random.random)" in mainspring("run", "drawn", cwd=project(f"@app.step()\n{body}")).stderr
    assert "draws" not in mainspring("run", "drawn", cwd=project(f"@app.step(seed=7)\n{body}")).stderr


def test_a_step_that_writes_the_file_it_names_is_kept(project):
    root = project(
        "@app.step()\ndef writes() -> int:\n    Path('out.csv').write_text(str(pl.__version__))\n    return 1\n"
    )
    assert "not kept" not in mainspring("run", "writes", cwd=root).stderr
    assert "unchanged" in mainspring("run", "writes", cwd=root).stderr


SECRETS = """
@app.step(secrets=["values.token"])
def uses() -> int:
    print("token", current().secret("values.token"))
    return len(current().secret("values.token"))

@app.step(secrets=["values.token"])
def returns() -> dict[str, str]:
    return {"Authorization": "Bearer " + current().secret("values.token")}

@app.step(secrets=["values.token"])
def returns_rows() -> pl.DataFrame:
    return pl.DataFrame({"who": ["a", current().secret("values.token")]})

@app.step(secrets=["values.{other}"])
def other() -> int:
    return 1
"""


def test_a_step_reads_its_secret_and_cannot_give_it_away(project):
    root = project(SECRETS.replace("{other}", "token"))
    (root / "mainspring.toml").write_text('app = "work:app"\n[values]\ntoken = "env:WORK_TOKEN"\n')
    env = {"WORK_TOKEN": 'se"cret-\u00fc-42'}
    mainspring("check", cwd=root, env=env)
    assert mainspring("run", "uses", cwd=root, env=env).stdout.splitlines()[-1] == "12"
    assert mainspring("logs", "uses", cwd=root).stdout == "token ******\n"
    for name in ("returns", "returns_rows"):
        done = mainspring("run", name, cwd=root, env=env, status=5)
        assert f"error MS-5024  the result of {name} holds the secret values.token" in done.stderr
    secret = env["WORK_TOKEN"].encode()
    stored = [path.read_bytes() for path in (root / ".mainspring").rglob("*") if path.is_file()]
    assert not any(form in data for data in stored for form in (secret, secret.replace(b'"', b'\\"')))


def test_a_secret_that_is_not_set_or_is_a_list_is_refused_before_anything_runs(project):
    root = project(SECRETS.replace("{other}", "absent"))
    (root / "mainspring.toml").write_text('app = "work:app"\n[values]\ntoken = "t"\n')
    for words in (("check",), ("run", "other")):
        done = mainspring(*words, cwd=root, status=3)
        assert "error MS-3030  secret 'values.absent' is not set" in done.stderr
        assert f"from   {line_of(root, 'absent')}" in done.stderr
        assert 'values.absent = "env:ABSENT"' in done.stderr
    (root / "mainspring.toml").write_text('app = "work:app"\n[values]\ntoken = "t"\nabsent = ["env:A", "env:B"]\n')
    assert "error MS-3031" in mainspring("run", "other", cwd=root, status=3).stderr
    (root / "mainspring.toml").write_text('app = "work:app"\n[my]\ntoken = "env:T"\n')
    assert "your own go below [values]" in mainspring("run", "uses", cwd=root, status=3).stderr


FAILS = """
@app.step(timeout="300ms")
def slow() -> int:
    time.sleep(60)
    return 1

@app.step()
def killed() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 1

@app.step()
def left() -> int:
    os._exit(3)

@app.step()
def deep() -> int:
    return inner()

def inner() -> int:
    os.kill(os.getpid(), signal.SIGSEGV)  # here
    return 1
"""


@pytest.mark.parametrize(("name", "code"), [("slow", "MS-2032"), ("killed", "MS-2035"), ("left", "MS-2037")])
def test_a_worker_that_ends_without_a_word_names_the_declaration(project, name, code):
    root = project(FAILS)
    done = mainspring("run", name, cwd=root, status=1)
    assert f"error {code}" in done.stderr
    lines = (root / "work.py").read_text().splitlines()
    assert f"from   work.py:{lines.index(f'def {name}() -> int:')}\n" in done.stderr


def test_a_crash_names_the_line_that_ran(project):
    root = project(FAILS)
    done = mainspring("run", "deep", cwd=root, status=1)
    assert "error MS-2036" in done.stderr
    assert f"from   {line_of(root, '# here')}" in done.stderr
    assert "Extension modules" not in done.stderr
    assert "mainspring/cli" not in done.stderr


def test_what_a_model_comes_to_names_the_models_declaration(tmp_path):
    mainspring("new", "shop", "--from", "blank", cwd=tmp_path)
    app = tmp_path / "shop" / "shop.py"
    text = app.read_text().replace(
        "    from sklearn.impute", "    import os\n\n    os._exit(3)\n    from sklearn.impute"
    )
    app.write_text(text)
    place = (
        text.splitlines().index('@app.model(inputs=[habits, visits.amount], label=visits.returned, metric="roc_auc")')
        + 1
    )
    done = mainspring("run", "returns", cwd=tmp_path / "shop", status=1)
    assert "error MS-2037  model returns left" in done.stderr
    assert f"from   shop.py:{place}\n" in done.stderr


ARGUMENTS = """
from datetime import date

@app.step()
def told(n: int, day: date, name: str = "x", rates: list[float] = [0.5]) -> str:
    return f"{n!r} {day!r} {name!r} {rates!r}"

@app.pipeline
def p(n: int, day: date = date(2013, 7, 1), name: str = "x"):
    return told(n + 1, day, name)
"""


def test_arguments_become_what_the_annotations_say(project):
    root = project(ARGUMENTS)
    done = mainspring("run", "p", "n=4", "day=2013-07-02", "name=5", cwd=root)
    assert done.stdout.splitlines()[-1] == "5 datetime.date(2013, 7, 2) '5' [0.5]"
    done = mainspring("run", "told", "n=4", "day=2013-07-02", "rates=[1, 2]", cwd=root)
    assert done.stdout.splitlines()[-1] == "4 datetime.date(2013, 7, 2) 'x' [1.0, 2.0]"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("p", "n=x"), "n=x is not int"),
        (("p", "n=1", "day=soon"), "day=soon is not date"),
        (("p",), "p needs n=..."),
        (("told", "n=1", "day=2013-07-01", "m=2"), "told has no parameter 'm'"),
    ],
)
def test_an_argument_that_does_not_fit_is_the_commands_fault(project, words, what):
    done = mainspring("run", *words, cwd=project(ARGUMENTS), status=2)
    assert f"error MS-2608  {what}\n" in done.stderr
    assert "n: int" in done.stderr


BRANCHES = """
@app.step()
def a_fails() -> int:
    raise ValueError("no rows")

@app.step(a_fails)
def b_needs_it(n: int) -> int:
    return n

@app.step()
def c_fails() -> int:
    raise KeyError("no column")

@app.step()
def d_first() -> int:
    return 1

@app.step(d_first)
def e_second(n: int) -> int:
    return n + 1
"""


def test_apply_finishes_what_does_not_depend_on_a_failure(project):
    root = project(BRANCHES)
    done = mainspring("apply", "--json", cwd=root, status=1)
    report = json.loads(done.stdout)
    assert report["error"]["why"] == "ValueError: no rows"
    assert {step["name"]: step["status"] for step in report["steps"]} == {
        "step/a_fails": "failed",
        "step/b_needs_it": "skipped",
        "step/c_fails": "failed",
        "step/d_first": "ok",
        "step/e_second": "ok",
    }
    assert report["status"] == "failed"
    assert "why    ValueError: no rows" in done.stderr
    assert "why    KeyError: 'no column'" in done.stderr
    assert "a_fails" in mainspring("plan", cwd=root, status=2).stdout  # it is not remembered as applied


VIEW = """

import polars as pl


@app.features(visits, entity=customer)
def rated(rows):
    return rows.select("customer", "at", rate=pl.lit(pl.read_csv(source="data/rates.csv")["rate"][0]))  # here
"""


def test_a_feature_view_that_reads_what_is_no_source_is_computed_whole_each_time(tmp_path):
    mainspring("new", "shop", "--from", "blank", cwd=tmp_path)
    root = tmp_path / "shop"
    (root / "shop.py").write_text((root / "shop.py").read_text() + VIEW)
    rates = []
    for rate in ("1.5", "2.5"):
        (root / "data" / "rates.csv").write_text(f"rate\n{rate}\n")
        done = mainspring("run", "rated", cwd=root)
        assert "not kept for other runs" in done.stderr
        assert "data/rates.csv" in done.stderr
        services = Services.of_project(root)
        (log,) = [name for name in services.tables.tables() if name.startswith("feature_view/rated/")]
        rates.append(services.tables.read(log).sort_by("_seq").column("rate").to_pylist()[-1])
        services.close()
    assert rates == [1.5, 2.5]
