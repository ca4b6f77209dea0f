"""The main jobs, told as stories. Flights become a monitored endpoint, a feed breaks, the model is replaced.

``python -m examples.demo [flights|support] [--once]``. It uses the projects of this folder as any user would, through
the command line and over HTTP; a second run finds nearly everything built.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from examples import demo_support
from examples.stage import BIN, ROOT, Client, Server, free_port, progress, running, say

TRAIN_UNTIL = datetime(2013, 7, 1, tzinfo=UTC)
FAULT_AT = datetime(2013, 7, 15, tzinfo=UTC)
REPLAY_UNTIL = datetime(2013, 8, 16, tzinfo=UTC)
MPH_TO_KMH = 1.609344
BATCH = timedelta(hours=1)


@dataclass(frozen=True)
class Later:
    """What comes after the training, until the replay ends; `planes` are those built in 2013 that first fly then."""

    flights: pl.DataFrame
    weather: pl.DataFrame
    planes: pl.DataFrame


def prepare(folder: Path) -> Later:
    """The demo's own copy of the project, whose data ends where the replay begins; returns what comes later."""
    source = ROOT / "flights"
    sys.path.insert(0, str(source))
    import data

    full, past = folder / "full", folder / "data"
    if not all((full / f"{name}.parquet").exists() for name in data.READERS):
        data.write(full)
        shutil.rmtree(past, ignore_errors=True)
    for name in ("flights.py", "mainspring.toml"):
        if not (folder / name).exists() or (folder / name).read_bytes() != (source / name).read_bytes():
            shutil.copyfile(source / name, folder / name)
    flights, weather, planes = (pl.read_parquet(full / f"{name}.parquet") for name in ("flights", "weather", "planes"))
    first_flights = flights.group_by("tailnum").agg(first=pl.col("departed").min())
    new = planes.filter(built=TRAIN_UNTIL.year).join(first_flights, on="tailnum").filter(pl.col("first") >= TRAIN_UNTIL)
    landed = pl.col("landed") < TRAIN_UNTIL  # what has not landed yet has no label yet
    known = {
        "flights": flights.filter(pl.col("departed") < TRAIN_UNTIL).with_columns(
            late=pl.when(landed).then("late"), landed=pl.when(landed).then("landed")
        ),
        "weather": weather.filter(pl.col("observed") < TRAIN_UNTIL),
        "planes": planes.join(new, on="tailnum", how="anti"),
    }
    past.mkdir(exist_ok=True)
    for name, frame in known.items():
        if not (past / f"{name}.parquet").exists():
            frame.write_parquet(past / f"{name}.parquet")
    return Later(
        flights.filter(pl.col("departed").is_between(TRAIN_UNTIL, REPLAY_UNTIL, closed="left")),
        weather.filter(pl.col("observed").is_between(TRAIN_UNTIL, REPLAY_UNTIL, closed="left")),
        new.filter(pl.col("first") < REPLAY_UNTIL).sort("first"),
    )


def rfc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Told:
    """What the replay saw."""

    requests: int = 0
    failed: int = 0
    pushed: int = 0
    labels: int = 0
    millis: list[float] = field(default_factory=list)
    seconds: float = 0.0
    versions: list[str] = field(default_factory=list)
    retraining_waits: float = 0.0


def by_hour(rows: pl.DataFrame, time: str) -> dict[object, list[dict[str, object]]]:
    """The rows of each hour, in order."""
    hours = rows.group_by(pl.col(time).dt.truncate("1h"), maintain_order=True)
    return {hour: part.to_dicts() for (hour,), part in hours}


def replay(server: Server, later: Later) -> Told:
    """Later flights as traffic, in event-time order: rows are pushed, answers asked for, labels sent after landing."""
    told, client = Told(), Client(server.port)
    broken = later.weather.with_columns(
        wind_speed=pl.when(pl.col("observed") >= FAULT_AT)
        .then(pl.col("wind_speed") * MPH_TO_KMH)
        .otherwise("wind_speed")
    )
    departures, sky = by_hour(later.flights, "departed"), by_hour(broken, "observed")
    delivered = by_hour(later.planes, "first")
    landing: dict[datetime, list[tuple[str, dict[str, object]]]] = {}
    began, at, day = time.monotonic(), TRAIN_UNTIL, TRAIN_UNTIL
    alarmed = False
    while at < REPLAY_UNTIL:
        progress(f"      {at:%d %B %H:%M}  {told.requests:,} requests, {told.failed} failed")
        rows = departures.get(at, [])
        told.pushed += push(client, "planes", at, [plane_row(row) for row in delivered.get(at, [])])
        told.pushed += push(client, "weather", at, [wire_row(row) for row in sky.get(at, [])])
        told.pushed += push(
            client, "flights", at, [departure(row) for row in rows] + [row for _, row in landing.get(at, [])]
        )
        labels = [{"id": i, "value": r["late"], "at": r["landed"]} for i, r in landing.pop(at, []) if i]
        if labels:
            expect(client.send("POST", "/labels", {"labels": labels}), 202)
            told.labels += len(labels)
        for row in rows:
            ask(client, row, told, landing)
        at += BATCH
        if at - day >= timedelta(days=1):
            day = at
            if at >= FAULT_AT and not alarmed:
                alarmed = any(int(str(alarm["since"])) >= FAULT_AT.timestamp() * 1e6 for alarm in alarms(server))
                if alarmed:
                    progress(f"      {at:%d %B %H:%M}  an alarm: a training runs, requests go on")
                    told.retraining_waits = wait_for_retraining(server, client, told, rows)
    told.seconds = time.monotonic() - began
    progress("")
    return told


def departure(row: dict[str, object]) -> dict[str, object]:
    return wire_row({**row, "late": None, "landed": None})


def plane_row(row: dict[str, object]) -> dict[str, object]:
    return wire_row({name: value for name, value in row.items() if name != "first"})


def wire_row(row: dict[str, object]) -> dict[str, object]:
    return {key: rfc(value) if isinstance(value, datetime) else value for key, value in row.items()}


def push(client: Client, source: str, at: datetime, rows: list[dict[str, object]]) -> int:
    if rows:
        expect(client.send("POST", f"/sources/{source}/push", {"rows": rows, "now": rfc(at)}), 200)
    return len(rows)


def ask(
    client: Client, row: dict[str, object], told: Told, landing: dict[datetime, list[tuple[str, dict[str, object]]]]
) -> None:
    departed, landed = row["departed"], row["landed"]
    body = {name: row[name] for name in ("origin", "carrier", "tailnum", "distance")} | {"now": rfc(departed)}
    began = time.perf_counter()
    status, answer = client.send("POST", "/endpoint/late", body)
    told.millis.append((time.perf_counter() - began) * 1e3)
    told.requests += 1
    if status != 200:
        told.failed += 1
        return
    found = json.loads(answer)
    if not told.versions or told.versions[-1] != found["version"]:
        told.versions.append(found["version"])
    if isinstance(landed, datetime) and row["late"] is not None:
        hour = landed.replace(minute=0, second=0, microsecond=0) + BATCH
        landing.setdefault(hour, []).append((found["id"], wire_row(row)))


def expect(answer: tuple[int, bytes], status: int) -> None:
    if answer[0] != status:
        raise SystemExit(f"{answer[0]}: {answer[1].decode()[:500]}")


def alarms(server: Server) -> list[dict[str, object]]:
    status, body = Client(server.console).send("GET", "/monitors/late.json", None)
    return json.loads(body)["alarms"] if status == 200 else []


def models(server: Server) -> dict[str, object]:
    _, body = Client(server.console).send("GET", "/models/late.json", None)
    found: dict[str, object] = json.loads(body)
    return found


def wait_for_retraining(server: Server, client: Client, told: Told, rows: list[dict[str, object]]) -> float:
    """Go on asking while the retraining runs and its model takes over: no request may fail."""
    began = time.monotonic()
    before = len(models(server)["versions"])  # type: ignore[arg-type]
    while time.monotonic() - began < 120:
        for row in rows[:20]:
            ask(client, {**row, "landed": None}, told, {})
        found = models(server)
        settled = any(
            event["what"] in ("model.champion", "model.refused") and event["data"].get("live")
            for event in found["events"]  # type: ignore[attr-defined]
        )
        if settled and len(found["versions"]) > before - 1:  # type: ignore[arg-type]
            break
        time.sleep(0.2)
    time.sleep(1)
    return time.monotonic() - began


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else float("nan")


def story(server: Server, told: Told) -> None:
    found = models(server)
    events = found["events"]
    say(
        f"      {told.requests:,} requests over HTTP in {told.seconds:.0f} s, {told.failed} failed; "
        f"p50 {statistics.median(told.millis):.2f} ms, p99 {quantile(told.millis, 0.99):.2f} ms (client's view)"
    )
    pushed = told.pushed / told.seconds
    say(f"      {told.pushed:,} rows pushed meanwhile ({pushed:,.0f} rows/s), {told.labels:,} labels after landing")
    raised = sorted(alarms(server), key=lambda alarm: int(str(alarm["since"])))
    fault_us = FAULT_AT.timestamp() * 1e6
    say()
    say(f"  3   On {FAULT_AT:%d %B} the weather feed changes its unit: miles an hour become kilometres an hour")
    for alarm in raised:
        since = int(str(alarm["since"]))
        when = datetime.fromtimestamp(since / 1e6, UTC)
        delay = (since - fault_us) / 86_400e6
        where = f"{delay:.0f} blocks after the fault" if since >= fault_us else "before the fault: a false alarm"
        say(
            f"      alarm for {when:%d %B}, {where}: {alarm['kind']} of {', '.join(alarm['features'])}"  # type: ignore[arg-type]
            f" (score {alarm['score']:.2f}, threshold {alarm['threshold']:.2f})"
        )
    say()
    say("  4   The alarm starts a training; its gate decides on rows that neither model has seen")
    for event in reversed(events):  # type: ignore[call-overload]
        data = event["data"]
        if event["what"] in ("model.champion", "model.refused") and "delta" in data:
            verdict = "promoted" if event["what"] == "model.champion" else "refused"
            say(
                f"      version {data['version']} on {data['rows']:,} rows: {data['metric']} "
                f"{data['new'][data['metric']]:.4f}, gain {data['delta']:+.4f} "
                f"[{data['low']:+.4f}, {data['high']:+.4f}]: {verdict}, {data['why']}"
            )
    say(f"      versions that answered: {' then '.join(told.versions)}; {told.failed} failed requests")


def build(folder: Path) -> dict[str, object]:
    done = subprocess.run(
        [str(BIN / "mainspring"), "apply", "--json"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    report: dict[str, object] = json.loads(done.stdout)
    return report


def for_replay(folder: Path) -> Path:
    """A copy of the built project: what the replay adds is not there next time, what was built is."""
    copy = folder.with_name(f"{folder.name}-live")
    shutil.rmtree(copy, ignore_errors=True)
    ignored = shutil.ignore_patterns("full", "dev.lock", "*.log")
    shutil.copytree(folder, copy, ignore=ignored)
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="flights", choices=["flights", "support"])
    parser.add_argument("--once", action="store_true", help="stop when the story is told")
    parser.add_argument("--folder", type=Path, help="where the project is kept")
    options = parser.parse_args()
    folder: Path = options.folder or ROOT.parent / ".demo" / options.name
    if options.name == "support":
        demo_support.tell(folder, once=options.once)
        return
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    say("Mainspring: will this flight arrive late?")
    say()
    later = prepare(folder)
    progress("      building: sources, features, training set, model, evaluation, baseline")
    first = build(folder)
    again = build(folder)
    progress("")
    steps = first["steps"]
    hits = sum(step["status"] == "hit" for step in steps)  # type: ignore[attr-defined]
    later_hits = sum(step["status"] == "hit" for step in again["steps"])  # type: ignore[attr-defined]
    rows = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in (folder / "data").glob("*.parquet"))
    seconds = float(first["wall_seconds"])  # type: ignore[arg-type]
    speed = f" ({rows / seconds:,.0f} rows/s)" if not hits else ""
    say(
        f"  1   {rows:,} rows through {len(steps)} steps in {seconds:.1f} s{speed}, "  # type: ignore[arg-type]
        f"{hits} of them kept from last time; "
        f"again: {later_hits} of {len(steps)} kept, {again['wall_seconds']:.1f} s"  # type: ignore[arg-type]
    )
    server = Server(for_replay(folder), free_port(8080), free_port(8081))
    with running(server):
        version = models(server)["versions"][0]  # type: ignore[index]
        auc = version["metrics"]["roc_auc"]
        say(
            f"      trained on January to June: ROC AUC {auc['value']:.4f} [{auc['low']:.4f}, {auc['high']:.4f}] "
            f"on {auc['n']:,} later flights"
        )
        say()
        days = f"{TRAIN_UNTIL:%-d %B} to {REPLAY_UNTIL - timedelta(days=1):%-d %B}"
        say(f"  2   {len(later.flights):,} flights of {days} as traffic, faster than life")
        told = replay(server, later)
        story(server, told)
        say()
        say(f"      all of it took {time.monotonic() - began:.0f} s")
        say()
        say(f"  endpoint  {server.url}/endpoint/late")
        say(f"  console   http://127.0.0.1:{server.console}")
        if options.once:
            return
        say("  Ctrl-C stops both")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
