"""What monitoring costs: nanoseconds a value, and time and memory for 1M rows x 50 columns.

    python bench/drift.py                 the counter and the whole evaluation, against their bars
    python bench/drift.py --rows 100000 --columns 18 --peer    the same by Evidently and NannyML, in their own venv

Bars: counter <= 15 ns a value; reference and current of 1M x 50 registered, counted and judged in <= 3 s on 2 cores,
with <= 64 MiB above the data; >= 40 x Evidently and >= 8 x NannyML on 100k x 18.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import venv

import numpy as np
import pyarrow as pa

from mainspring.declare.options import yearly_budget
from mainspring.monitoring.stats.count import count
from mainspring.monitoring.stats.decide import judge, rank, thresholds
from mainspring.monitoring.stats.reference import reference
from mainspring.monitoring.stats.register import Watched, count_table, register
from mainspring.monitoring.stats.report import well_known
from mainspring.monitoring.stats.state import merge
from mainspring.monitoring.stats.threshold import alpha

DAY = 86_400_000_000
DAYS = 60
WORDS = np.array([f"carrier {i}" for i in range(40)])
PLACE = pathlib.Path(tempfile.gettempdir()) / "mainspring-drift-peers"
PEERS = ("evidently==0.7.23", "nannyml==0.13.1", "pyarrow")
PEER = """
import json, sys, time, warnings
import pandas as pd
warnings.simplefilter("ignore")
reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
columns = [c for c in reference.columns if c != "at"]
answer = {}
def timed(name, run):
    try:
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
        answer[name] = best
    except Exception as fault:
        answer[name] = repr(fault)
def evidently():
    from evidently import Report
    from evidently.presets import DataDriftPreset
    Report([DataDriftPreset()]).run(current[columns], reference[columns])
def nannyml():
    import nannyml as nml
    calculator = nml.UnivariateDriftCalculator(column_names=columns, timestamp_column_name="at", chunk_period="D")
    calculator.fit(reference)
    calculator.calculate(current)
timed("evidently", evidently)
timed("nannyml", nannyml)
print(json.dumps(answer))
"""


def column(random, kind, n):
    if kind == 0:
        return pa.array(random.choice(WORDS, n, p=np.arange(1, 41) / 820))
    if kind == 1:
        return pa.array(random.poisson(3.0, n))
    if kind == 2:
        return pa.array(np.where(random.random(n) < 0.4, 0.0, random.lognormal(size=n)))
    if kind == 3:
        return pa.array(random.normal(size=n), mask=random.random(n) < 0.05)
    return pa.array(random.lognormal(sigma=1.0, size=n))


def table(rows, columns, seed, first):
    random = np.random.default_rng(seed)
    times = first * DAY + np.arange(rows) * (DAYS * DAY // rows)
    named = {f"x{i:02}": column(random, i % 10, rows) for i in range(columns)}
    return pa.table({"at": pa.array(times, pa.timestamp("us")), **named})


def best(run, rounds=5):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def memory(field):
    """A line of this process's memory report, in MiB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")


def counter():
    random = np.random.default_rng(0)
    n, piece = 1_000_000, 8192
    times = pa.array(np.arange(n) * (DAYS * DAY // n), pa.timestamp("us"))
    hashes = random.integers(0, 2**63, 40).astype(np.uint64)
    cases = {
        "float64, lognormal": (column(random, 9, n), None),
        "float64, 40 % zeros": (column(random, 2, n), None),
        "float64, 5 % null": (column(random, 3, n), None),
        "int64, small counts": (column(random, 1, n), None),
        "text, 40 categories": (column(random, 0, n), None),
        "hashes, 40 categories": (pa.array(hashes[random.integers(0, 40, n)]), "hash"),
    }
    print(f"{'ns a value':24}{'1M rows':>10}{'and fine':>10}{'8192 rows':>11}   bar 15")
    for name, (values, kind) in cases.items():
        layout = register(pa.table({"at": times, "x": values}), "at", [Watched("x", kind)])["x"].layout()
        part = values.slice(0, piece)
        whole = best(lambda v=values, k=layout: count(v, k)) * 1e9 / n
        fine = best(lambda v=values, k=layout: count(v, k, fine=True)) * 1e9 / n
        small = best(lambda v=part, k=layout: count(v, k), 50) * 1e9 / piece
        print(
            f"{name:24}{whole:10.1f}{fine:10.1f}{small:11.1f}   {'met' if max(whole, fine, small) <= 15 else 'MISSED'}"
        )


def evaluate(old, new, names):
    """Register the reference, count the current table, judge its last day and week; the time of each part."""
    marks = [time.perf_counter()]
    baseline = register(old, "at", names)
    marks.append(time.perf_counter())
    counted = count_table(new, "at", baseline, fine=True)
    marks.append(time.perf_counter())
    chance = alpha(yearly_budget("1 per quarter"), len(names), baseline.block_us)
    findings, sizes = [], 0
    for name in names:
        ready = reference(baseline, name)
        states = list(counted[name].items())
        findings += judge(ready, thresholds(ready, chance), states[-7:])
        well_known(ready, merge(state for _, state in states))
        sizes = max(sizes, max(len(state.to_bytes()) for _, state in states))
    rank(findings)
    marks.append(time.perf_counter())
    return np.diff(marks), findings, sizes


def whole(rows, columns):
    old, new = table(rows, columns, 1, 20_000), table(rows, columns, 2, 20_000 + DAYS)
    names = [name for name in old.column_names if name != "at"]
    evaluate(old.slice(0, 2000), new.slice(0, 2000), names[:2])
    resident, growth = memory("VmRSS"), float("nan")
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        parts, findings, sizes = evaluate(old, new, names)
        growth = memory("VmHWM") - resident
    except OSError:
        parts, findings, sizes = evaluate(old, new, names)
    parts = min([parts, evaluate(old, new, names)[0], evaluate(old, new, names)[0]], key=sum)
    data = (old.nbytes + new.nbytes) / 2**20
    print(f"\n{rows:,} x {columns} reference and as much current ({data:.0f} MiB), {DAYS} days each")
    for label, part in zip(("register", "count, fine", "thresholds, scores, reports"), parts, strict=True):
        print(f"  {label:30}{part:8.2f} s")
    print(f"  {'together':30}{sum(parts):8.2f} s   {verdict(sum(parts) <= 3.0, rows, columns, 'bar 3 s')}")
    print(f"  {'peak above the data':30}{growth:8.1f} MiB {verdict(growth <= 64, rows, columns, 'bar 64 MiB')}")
    print(f"  {'largest state':30}{sizes:8} B   {'met' if sizes <= 16_384 else 'MISSED'}, bar 16384")
    print(f"  alarms on unchanged data      {sum(f.state == 'alarm' for f in findings):8}")
    return old, new, sum(parts)


def verdict(met, rows, columns, bar):
    if (rows, columns) != (1_000_000, 50):
        return f"({bar} is for 1,000,000 x 50)"
    return f"{'met' if met else 'MISSED'}, {bar}"


def peers(old, new, ours, place):
    import pyarrow.parquet as pq

    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS], check=True)
    paths = [str(place / name) for name in ("reference.parquet", "current.parquet")]
    for rows, path in zip((old, new), paths, strict=True):
        pq.write_table(rows, path)
    done = subprocess.run([python, "-c", PEER, *paths], check=True, capture_output=True, text=True, env={**os.environ})
    for name, seconds in json.loads(done.stdout.splitlines()[-1]).items():
        text = f"{seconds:.2f} s, {seconds / ours:.1f} x ours" if isinstance(seconds, float) else seconds
        print(f"  {name:30}{text}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--columns", type=int, default=50)
    arguments.add_argument("--peer", action="store_true", help="also time Evidently and NannyML (installs them)")
    arguments.add_argument("--peer-venv", type=pathlib.Path, default=PLACE)
    given = arguments.parse_args()
    print(
        f"python {sys.version.split()[0]}, numpy {np.__version__}, pyarrow {pa.__version__}, {os.cpu_count()} cores\n"
    )
    counter()
    old, new, ours = whole(given.rows, given.columns)
    if given.peer:
        peers(old, new, ours, given.peer_venv)


if __name__ == "__main__":
    main()
