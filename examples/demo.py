"""The main job, told as a story: real flights become a monitored endpoint, a feed breaks, the model is replaced.

``python -m examples.demo [flights] [--once]``. It uses the project ``examples/flights`` as any user would, through the
command line and over HTTP; a second run finds nearly everything built.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
TRAIN_UNTIL = datetime(2013, 7, 1, tzinfo=UTC)
FAULT_AT = datetime(2013, 7, 15, tzinfo=UTC)
REPLAY_UNTIL = datetime(2013, 8, 16, tzinfo=UTC)
MPH_TO_KMH = 1.609344
BATCH = timedelta(hours=1)


def say(text: str = "") -> None:
    print(text, flush=True)


def progress(text: str) -> None:
    """A line that the next one takes the place of; nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@dataclass
class Server:
    """``mainspring dev`` of the demo's project, in a process of its own."""

    project: Path
    port: int
    console: int
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=Path)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.log = self.project / "server.log"
        command = [BIN / "mainspring", "dev", "--no-watch", "--port", self.port, "--console-port", self.console]
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.project,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
        wait_until(self.ready, 180, self)

    def ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise SystemExit(f"the server ended:\n{self.log.read_text()}")
        try:
            status, _ = Client(self.port).send("GET", "/v2/health/ready", None)
        except OSError:
            return False
        return status == 200

    def stop(self) -> int:
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def send(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        self.connection.request(method, path, data, {"content-type": "application/json"})
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def wait_until(true: object, seconds: float, server: Server) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing after {seconds:.0f} s:\n{server.log.read_text()[-2000:]}")
        time.sleep(0.1)


def prepare(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The demo's own copy of the project, whose data ends where the replay begins; returns what comes later."""
    source = ROOT / "flights"
    sys.path.insert(0, str(source))
    import data

    full = folder / "full"
    if not (full / "weather.parquet").exists():
        data.write(full)
    for name in ("flights.py", "mainspring.toml"):
        if not (folder / name).exists() or (folder / name).read_bytes() != (source / name).read_bytes():
            shutil.copyfile(source / name, folder / name)
    (folder / "data").mkdir(exist_ok=True)
    flights, weather = pl.read_parquet(full / "flights.parquet"), pl.read_parquet(full / "weather.parquet")
    for name, frame, time_column in (("flights", flights, "departed"), ("weather", weather, "observed")):
        path = folder / "data" / f"{name}.parquet"
        if not path.exists():
            past = frame.filter(pl.col(time_column) < TRAIN_UNTIL)
            if name == "flights":  # what has not landed yet has no label yet
                unknown = pl.col("landed") >= TRAIN_UNTIL
                past = past.with_columns(
                    late=pl.when(~unknown.fill_null(False)).then("late"),
                    landed=pl.when(~unknown.fill_null(False)).then("landed"),
                )
            past.write_parquet(path)
    return (
        flights.filter(pl.col("departed").is_between(TRAIN_UNTIL, REPLAY_UNTIL, closed="left")),
        weather.filter(pl.col("observed").is_between(TRAIN_UNTIL, REPLAY_UNTIL, closed="left")),
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


def replay(server: Server, flights: pl.DataFrame, weather: pl.DataFrame) -> Told:
    """Later flights as traffic, in event-time order: rows are pushed, answers asked for, labels sent after landing."""
    told, client = Told(), Client(server.port)
    broken = weather.with_columns(
        wind_speed=pl.when(pl.col("observed") >= FAULT_AT)
        .then(pl.col("wind_speed") * MPH_TO_KMH)
        .otherwise("wind_speed")
    )
    by_hour = {
        key[0]: part for key, part in flights.group_by(pl.col("departed").dt.truncate("1h"), maintain_order=True)
    }
    sky = {key[0]: part for key, part in broken.group_by(pl.col("observed").dt.truncate("1h"), maintain_order=True)}
    landing: dict[datetime, list[tuple[str, dict[str, object]]]] = {}
    began, at, day = time.monotonic(), TRAIN_UNTIL, TRAIN_UNTIL
    alarmed = False
    while at < REPLAY_UNTIL:
        progress(f"      {at:%d %B %H:%M}  {told.requests:,} requests, {told.failed} failed")
        rows = by_hour.get(at, pl.DataFrame()).to_dicts()
        told.pushed += push(client, "weather", at, [flight_row(row) for row in sky.get(at, pl.DataFrame()).to_dicts()])
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
    return flight_row({**row, "late": None, "landed": None})


def flight_row(row: dict[str, object]) -> dict[str, object]:
    return {key: rfc(value) if isinstance(value, datetime) else value for key, value in row.items()}


def push(client: Client, source: str, at: datetime, rows: list[dict[str, object]]) -> int:
    if rows:
        expect(client.send("POST", f"/sources/{source}/push", {"rows": rows, "now": rfc(at)}), 200)
    return len(rows)


def ask(
    client: Client, row: dict[str, object], told: Told, landing: dict[datetime, list[tuple[str, dict[str, object]]]]
) -> None:
    departed, landed = row["departed"], row["landed"]
    body = {"origin": row["origin"], "carrier": row["carrier"], "distance": row["distance"], "now": rfc(departed)}
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
        landing.setdefault(hour, []).append((found["id"], flight_row(row)))


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


def free_port(wanted: int) -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.close()
            with contextlib.closing(socket.socket()) as other:
                other.bind(("127.0.0.1", 0))
                return int(other.getsockname()[1])
    return wanted


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="flights", choices=["flights"])
    parser.add_argument("--once", action="store_true", help="stop when the story is told")
    parser.add_argument(
        "--folder", type=Path, default=ROOT.parent / ".demo" / "flights", help="where the project is kept"
    )
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    say("Mainspring: will this flight arrive late?")
    say()
    later_flights, later_weather = prepare(folder)
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
        say(f"  2   {len(later_flights):,} flights of {days} as traffic, faster than life")
        told = replay(server, later_flights, later_weather)
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
