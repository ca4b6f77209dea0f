"""A project whose pipelines pass every kind of result from step to step."""

from __future__ import annotations

from pathlib import Path

WORK = '''
"""Orders by day."""

import time
from datetime import date, datetime
from pathlib import Path

import polars as pl

from mainspring import App, File, Frame, Record, current

app = App("work")


class Order(Record):
    order_id: int
    amount: float
    at: datetime


orders = app.source(Order, time="at", id="order_id")


class Recipe:
    """What JSON cannot hold."""

    def __init__(self, factor: float) -> None:
        self.factor = factor


@app.step()
def numbers(n: int, start: float = 1.0) -> Frame:
    return Frame({"x": [start + i for i in range(n)]})


@app.step(retries=3, timeout="10m")
def scaled(rows: Frame, factor: float, label: str = "a") -> Frame:
    return Frame(rows.polars().with_columns(pl.col("x") * factor, label=pl.lit(label)))


@app.step()
def total(rows: Frame) -> float:
    return rows.polars()["x"].sum()


@app.step()
def doubled(item: int, by: int = 2) -> int:
    return item * by


@app.step()
def written(parts: list[int], rows: Frame) -> File:
    folder = Path(current().work_dir) / "report"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "sum.txt").write_text(f"{sum(parts)} of {len(rows)}")
    tool = folder / "tool.sh"
    tool.write_text("exit 0")
    tool.chmod(0o755)
    return File(folder)


@app.step()
def joined(texts: list[float], when: date, report: File) -> dict[str, object]:
    names = sorted(path.name for path in report.path.rglob("*") if path.is_file())
    executable = bool((report.path / "tool.sh").stat().st_mode & 0o100)
    return {"sum": sum(texts), "when": when.isoformat(), "files": names, "executable": executable}


@app.pipeline
def nightly(n: int, when: date, factor: float = 2.0, days: list[int] = [1, 2, 3], label: str = "b"):
    rows = numbers(n)
    left, right = scaled(rows, factor, label=label), scaled(rows, 0.5, label="@fixed")
    parts = doubled.map(days, by=3)
    return joined([total(left), total(right)], when, written(parts, left))


@app.step()
def made(factor: float) -> object:
    return Recipe(factor)


@app.step()
def used(recipe: object) -> float:
    return recipe.factor


@app.step(orders)
def summed(rows: Frame) -> float:
    return rows.polars()["amount"].sum()


@app.pipeline
def sums():
    return summed()


@app.pipeline
def looks(days: list[int]):
    return [doubled(day) for day in days]


@app.step(once=True)
def paid(amount: float) -> float:
    return amount


@app.pipeline
def pays(amount: float):
    return paid(amount)


@app.step(retries=2, backoff="5s", resources={"cpu": 2, "memory": 4_000_000_000, "gpu": 1})
def heavy(n: int = 3) -> int:
    return n


@app.pipeline
def on_gpu(n: int | None = None):
    return heavy()


@app.step()
def slow(marker: str) -> int:
    Path(marker).write_text("begun")
    time.sleep(60)
    return 1


@app.step()
def fails() -> int:
    raise ValueError("no luck")
'''


def write_project(folder: Path) -> Path:
    """The project in a folder of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "work.py").write_text(WORK)
    (folder / "mainspring.toml").write_text('app = "work:app"\n[sources.orders]\npath = "orders.csv"\n')
    (folder / "orders.csv").write_text("order_id,amount,at\n1,2.5,2026-01-01T00:00:00Z\n2,4,2026-01-02T00:00:00Z\n")
    return folder
