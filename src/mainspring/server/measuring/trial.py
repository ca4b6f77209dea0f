"""An endpoint under load: how many answers a second, how soon, what each costs, and where that goes."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit

import msgspec
import orjson

from mainspring.choose.services import Services
from mainspring.declare.declaration import spec_of
from mainspring.declare.model import Endpoint
from mainspring.errors import DataError, ServiceError
from mainspring.features.logs.log import newest, read_log, source_of, standing
from mainspring.features.view import RETRACTS, SEQ
from mainspring.lazy import lazy
from mainspring.plan.graph import Node, Plan
from mainspring.server.measuring.load import Target, load
from mainspring.server.measuring.process import Tried, cpu_of, tried

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["USUAL", "Cost", "LoadPlan", "Measured", "Trial", "measure_here", "measure_there", "sent"]

ROWS = 1000
"""The most rows that are asked about, in turn."""
_LADDER = 16
"""The concurrency at which the parts of a request's cost are told apart."""
_STEP = 2000
"""Requests of each part."""
_WARM = 200


class LoadPlan(msgspec.Struct, frozen=True):
    """What is put on an endpoint.

    Attributes:
        batch: rows a request.
        concurrency: requests under way at once, one load after the other.
        seconds: how long each load lasts.
    """

    batch: int = 1
    concurrency: Sequence[int] = (1, 16, 64)
    seconds: float = 3.0


USUAL = LoadPlan()
"""What is put on it when nobody says otherwise."""


class Cost(msgspec.Struct, frozen=True):
    """Where the processor time of a request goes, in microseconds.

    Attributes:
        total: of one request by keys.
        http: reading a request, finding who answers, and writing an answer: what the cheapest route costs.
        model: computing, by the server's own clock on the same row as a tensor.
        rest: reading JSON, checking it, looking features up, logging, writing JSON.
    """

    total: float
    http: float
    model: float
    rest: float


class Measured(msgspec.Struct, frozen=True):
    """An endpoint under a load.

    Attributes:
        concurrency: requests under way at once.
        per_second: answers a second.
        p50_ms: half of them came within this.
        p99_ms: 99 in 100 did.
        cpu_us: processor time of the server's for one; None where it runs elsewhere.
        answered: how many there were.
        failed: of those, how many told no success.
        generator: the share of a core that asking took; near 1, it and not the server is the limit.
    """

    concurrency: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float | None
    answered: int
    failed: int
    generator: float


class Trial(msgspec.Struct, frozen=True):
    """What was measured of an endpoint.

    Attributes:
        endpoint: its name.
        model: who answered.
        version: its version.
        rows: how many different rows were asked about.
        batch: rows a request.
        promised_ms: the latency that it promises for 99 requests in 100; None for none.
        loads: by concurrency.
        cost: where the time goes; None where the server runs elsewhere.
    """

    endpoint: str
    model: str
    version: str
    rows: int
    batch: int
    promised_ms: float | None
    loads: Sequence[Measured]
    cost: Cost | None = None


class _Place(msgspec.Struct, frozen=True):
    host: str
    port: int
    key: str = ""

    def request(self, method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
        """A whole request."""
        key = f"authorization: Bearer {self.key}\r\n" if self.key else ""
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\n{key}{headers}content-length: {len(body)}\r\n\r\n"
        return head.encode() + body


def sent(value: object) -> object:
    """A value of a table as a request carries it."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def measure_here(
    services: Services,
    plan: Plan,
    endpoint: str,
    given: Sequence[Mapping[str, Any]],
    loads: LoadPlan = USUAL,
    *,
    key: str = "",
    told: Callable[[str], None] = lambda line: None,
) -> Trial:
    """Serve an endpoint in a process of its own on this machine, and measure it.

    Args:
        services: the project's ports.
        plan: the app's graph.
        endpoint: its name.
        given: the rows to ask about; none takes the newest of the source that its model's labels belong to.
        loads: what is put on it.
        key: one of the keys of ``server.keys``, where there are any.
        told: told what is going on.

    Raises:
        DataError: MS-2793, there are no rows to ask about; MS-2794, the server refuses them.
        ServiceError: MS-4383, MS-4384, the server does not come up, or does not answer.
    """
    settings = services.settings
    told(f"serving {endpoint} in a process of its own")
    with tried(services.project, settings.profile, endpoint) as server:
        place = _Place(server.host, server.port, key)
        return _measured(place, server, services, plan, endpoint, given, loads, told)


def measure_there(
    services: Services,
    plan: Plan,
    url: str,
    endpoint: str,
    given: Sequence[Mapping[str, Any]],
    loads: LoadPlan = USUAL,
    *,
    key: str = "",
    told: Callable[[str], None] = lambda line: None,
) -> Trial:
    """Measure an endpoint of a server that runs already, over plain HTTP; arguments and errors are `measure_here`'s.

    The server logs what it answers as it always does, so its monitors see the load.
    """
    found = urlsplit(url)
    place = _Place(found.hostname or "127.0.0.1", found.port or 80, key)
    return _measured(place, None, services, plan, endpoint, given, loads, told)


def _measured(
    place: _Place,
    server: Tried | None,
    services: Services,
    plan: Plan,
    endpoint: str,
    given: Sequence[Mapping[str, Any]],
    wanted: LoadPlan,
    told: Callable[[str], None],
) -> Trial:
    node = plan.node(f"/endpoint/{endpoint}")
    assert node is not None
    spec = spec_of(cast(Endpoint, node.declaration))
    rows = list(given) or _newest_rows(services, plan, node, *_columns(place, endpoint))
    path = f"/endpoint/{quote(endpoint, '')}"
    first = _asked(place, "POST", f"{path}?features=true", orjson.dumps(rows[0]))
    batch = wanted.batch
    if batch == 1:
        bodies = [orjson.dumps(row) for row in rows]
    else:
        parts = [[rows[(start + one) % len(rows)] for one in range(batch)] for start in range(0, len(rows), batch)]
        bodies = [orjson.dumps({"rows": part}) for part in parts]
    asks = Target(place.host, place.port, [place.request("POST", path, body) for body in bodies])
    load(asks, min(wanted.concurrency), count=_WARM)
    loads = []
    for many in wanted.concurrency:
        told(f"{many} at once, for {wanted.seconds:g} s")
        loads.append(_loaded(asks, server, many, seconds=wanted.seconds))
    cost = None if server is None else _cost(place, server, asks, first, batch)
    promised = None if spec.latency_us is None else spec.latency_us / 1e3
    return Trial(endpoint, first["model"], first["version"], len(rows), batch, promised, loads, cost)


def _loaded(target: Target, server: Tried | None, many: int, *, seconds: float) -> Measured:
    before = 0.0 if server is None else cpu_of(server.pid)
    found = load(target, many, seconds=seconds)
    spent = None if server is None else (cpu_of(server.pid) - before) * 1e6 / max(found.answered, 1)
    return Measured(
        many,
        found.per_second,
        found.quantile(0.5) * 1e3,
        found.quantile(0.99) * 1e3,
        spent,
        found.answered,
        found.failed,
        found.own_cpu / found.seconds,
    )


def _cost(place: _Place, server: Tried, asks: Target, first: Mapping[str, Any], batch: int) -> Cost:
    """Each part's requests in turn, so that the machine's moods fall on all of them alike."""
    live = Target(place.host, place.port, [place.request("GET", "/v2/health/live")])
    matrix = np.array([list(first["features"].values())] * batch, "f4")
    tensor = {"name": "input", "datatype": "FP32", "shape": matrix.shape}
    head = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": matrix.nbytes}}]})
    length = f"inference-header-content-length: {len(head)}\r\n"
    path = f"/v2/models/{quote(first['model'], '')}/infer"
    infer = Target(place.host, place.port, [place.request("POST", path, head + matrix.tobytes(), length)])
    spent: dict[str, list[float]] = {"live": [], "asks": []}
    before = _computed(place, first["model"])
    load(infer, 1, count=_STEP)
    model = _computed(place, first["model"], before)
    for _ in range(3):
        for name, target in (("live", live), ("asks", asks)):
            begun = cpu_of(server.pid)
            found = load(target, _LADDER, count=_STEP)
            spent[name].append((cpu_of(server.pid) - begun) * 1e6 / max(found.answered, 1))
    http_, total = (sorted(spent[name])[1] for name in ("live", "asks"))
    model = min(model, max(total - http_, 0.0))
    return Cost(total, http_, model, max(total - http_ - model, 0.0))


def _computed(place: _Place, model: str, before: Mapping[str, Any] | None = None) -> Any:
    """What a model's statistics say; with those from before, the microseconds of a computation since then."""
    found = _asked(place, "GET", f"/v2/models/{quote(model, '')}/stats")["model_stats"][0]["inference_stats"]
    now: Mapping[str, Any] = found["compute_infer"]
    if before is None:
        return now
    return (int(now["ns"]) - int(before["ns"])) / 1e3 / max(int(now["count"]) - int(before["count"]), 1)


def _columns(place: _Place, endpoint: str) -> tuple[Sequence[str], Sequence[str]]:
    """What a row of a question may have, and what it must have."""
    found = _asked(place, "GET", "/openapi.json")
    body = found["paths"][f"/endpoint/{endpoint}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = found["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    ignored = {name for name, one in schema["properties"].items() if "type" not in one}
    return [name for name in schema["properties"] if name not in ignored and name != "now"], schema.get("required", [])


def _newest_rows(
    services: Services, plan: Plan, node: Node, names: Sequence[str], required: Sequence[str]
) -> list[dict[str, Any]]:
    """The newest rows of the source that the model's labels belong to, as questions."""
    model = spec_of(spec_of(cast(Endpoint, node.declaration)).model)
    source = source_of(model.spine)
    held = [field.name for field in source.fields if field.name in names]
    missing = [name for name in required if name not in held]
    found = newest(services.tables, source.log)
    if missing or found is None:
        why = f"{source.name!r} has no {', '.join(missing)}" if missing else f"{source.name!r} has no rows yet"
        raise DataError(
            f"there is nothing to ask {node.name} about",
            code="MS-2793",
            why=why,
            fix="write questions into a file, an object a line, and give it: --rows questions.jsonl",
        )
    order = services.tables.read(source.log, version=found.version, columns=[SEQ]).column(SEQ).to_numpy()
    least = int(np.sort(order)[-min(ROWS, len(order))])
    rows = read_log(services.tables, source.log, found.version, [*held, SEQ, RETRACTS], [(SEQ, ">=", least)])
    return [{name: sent(row[name]) for name in held} for row in standing(rows).to_pylist()]


def _asked(place: _Place, method: str, path: str, body: bytes = b"") -> Any:
    connection = http.client.HTTPConnection(place.host, place.port, timeout=30)
    try:
        connection.request(method, path, body or None, {"authorization": f"Bearer {place.key}"} if place.key else {})
        answer = connection.getresponse()
        found = orjson.loads(answer.read())
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
        raise ServiceError(
            f"http://{place.host}:{place.port} does not answer",
            code="MS-4383",
            why=str(error),
            fix="look whether the server runs: curl URL/v2/health/ready",
        ) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise DataError(
            f"the server refuses what is asked: {found.get('error', answer.status)}",
            code="MS-2794",
            why=f"{method} {path} gave {answer.status}",
            fix=str(found.get("fix", "")) or "correct the rows, or give a key with --key",
        )
    return found
