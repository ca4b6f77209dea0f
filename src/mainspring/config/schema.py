"""Every setting of Mainspring itself: its key, type, default and meaning; docs/settings.md lists the same."""

from __future__ import annotations

import math

import msgspec

__all__ = ["NAMED", "PORTS", "SETTINGS", "SettingSpec", "misfit"]

PORTS = (
    "catalog", "objects", "tables", "online", "compute", "budgets", "runtime", "converter",
    "manifest", "vectors", "embedder", "parser", "reranker", "llm", "threads", "target",
)  # fmt: skip
"""The ports; ``PORT.adapter`` names an adapter, ``PORT.url`` says where it is, other keys are the adapter's own."""

NAMED = {"llms": "llm", "targets": "target"}
"""Sections with an instance of a port for each name: ``llms.chat.url`` is where the language model ``chat`` is."""


class SettingSpec(msgspec.Struct, frozen=True):
    """A setting: ``*`` in its key stands for a name of the app's.

    Attributes:
        key: its dotted path.
        type: what its value is; the members of a list are texts.
        default: its value when it is not written.
        meaning: what it decides, with the unit.
        least: the least number that it takes, or None.
        most: the greatest, or None.
        choices: the texts that it takes; empty is any.
        secret: whether its value may be told only when it is a reference.
    """

    key: str
    type: type
    default: object
    meaning: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False

    def range(self) -> str:
        """What it takes, for people: ``one of "us"``, ``0 to 65535``, ``at least 1``; empty when anything goes."""
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return f"at least {self.least:g}" if self.least is not None else ""


def misfit(spec: SettingSpec, value: object) -> str:
    """Why a value of the right type cannot be: out of its range, none of the choices; empty when it can."""
    if isinstance(value, list):
        strange = [item for item in value if not isinstance(item, str)]
        return f"{strange[0]!r} in it is no text" if strange else ""
    if spec.choices:
        return "" if value in spec.choices else f"it takes {spec.range()}"
    if spec.least is None or not isinstance(value, (int, float)):
        return ""
    return "" if spec.least <= value <= (math.inf if spec.most is None else spec.most) else f"it takes {spec.range()}"


SETTINGS: tuple[SettingSpec, ...] = (
    SettingSpec("app", str, "", "the app: module:variable, the module relative to the project's folder"),
    SettingSpec("sources.*.path", str, None, "file, folder or glob of a source, relative to the project"),
    SettingSpec("sources.*.url", str, None, "where a source is, when it is no local file: a database, an object store"),
    SettingSpec(
        "sources.*.format",
        str,
        None,
        "the format of a source's files, when their names do not say",
        choices=("parquet", "csv", "json", "arrow"),
    ),
    SettingSpec(
        "sources.*.truncate",
        str,
        None,
        '"us" cuts nanoseconds off times instead of refusing them',
        choices=("us",),
    ),
    SettingSpec("sources.*.table", str, None, "the table or view of a source that is in a database"),
    SettingSpec("sources.*.query", str, None, "a query instead of a table: its text, or the .sql file that holds it"),
    SettingSpec("sources.*.cursor", str, None, "a column of the record that only grows; then only new rows are read"),
    SettingSpec(
        "sources.*.overlap",
        str,
        None,
        "how far an increment goes back before the newest row: a duration (10m), or of a number how much of it (1000)",
    ),
    SettingSpec(
        "sources.*.commit_rows",
        int,
        None,
        "rows of one commit of an increment or a topic: what it holds in memory, and what a killed one reads again "
        "at most; 250000 when left out",
        1,
    ),
    SettingSpec("sources.*.timeout", float, None, "seconds that one read of a source may take; 3600 when left out", 1),
    SettingSpec("sources.*.connect_timeout", float, None, "seconds that connecting may take; 10 when left out", 1),
    SettingSpec(
        "sources.*.options.*",
        str,
        None,
        "an option of the driver that reads a source, by its own name, or a secret reference to it",
        secret=True,
    ),
    SettingSpec("state.folder", str, None, "where state is kept; `.mainspring` in the project when left out"),
    SettingSpec("documents.*.path", str, None, "folder of documents, when it is not the one in the code"),
    SettingSpec("documents.*.may_be_empty", bool, None, "whether an empty folder deletes all its documents"),
    SettingSpec("documents.*.url", str, None, "where documents are, when they are in no local folder"),
    SettingSpec(
        "features.ack",
        str,
        "wal",
        "when a push is acknowledged: in the write-ahead log, or not before its rows are in the tables",
        choices=("wal", "table"),
    ),
    SettingSpec("features.commit_every", float, 1.0, "seconds between two commits of pushed rows", 0.01, 60),
    SettingSpec("features.commit_rows", int, 5000, "pushed rows of a source that are committed before that", 1),
    SettingSpec(
        "features.wal_bytes",
        int,
        268_435_456,
        "most bytes of a source's pushed rows that wait for the tables; beyond it the answer is 429",
        1,
    ),
    SettingSpec("server.host", str, "127.0.0.1", "address the endpoints listen on"),
    SettingSpec("server.port", int, 8080, "port the endpoints listen on; 0 takes a free one", 0, 65_535),
    SettingSpec("grpc.enabled", bool, True, "whether models and features are served over gRPC"),
    SettingSpec("grpc.port", int, 9000, "port of gRPC, on `server.host`; 0 takes a free one", 0, 65_535),
    SettingSpec(
        "grpc.max_message", int, None, "greatest message of gRPC, in bytes; `server.max_body` when left out", 1
    ),
    SettingSpec("grpc.certificate", str, None, "file of gRPC's certificate, in PEM; plain text when left out"),
    SettingSpec("grpc.private_key", str, None, "file of its private key, in PEM, without a passphrase"),
    SettingSpec("grpc.client_ca", str, None, "file of what signs clients' certificates; they must have one then"),
    SettingSpec(
        "server.certificate", str, None, "file of the endpoints' certificate, in PEM; plain text when left out"
    ),
    SettingSpec("server.private_key", str, None, "file of its private key, in PEM, without a passphrase"),
    SettingSpec("server.client_ca", str, None, "file of what signs clients' certificates; they must have one then"),
    SettingSpec("server.max_body", int, 8_388_608, "greatest request body, in bytes", 1),
    SettingSpec("server.max_rows", int, 65_536, "most rows in one request", 1),
    SettingSpec(
        "server.workers",
        int,
        1,
        "processes of `mainspring serve` that answer at the same port; above 1 on Linux",
        1,
        256,
    ),
    SettingSpec("server.queue", int, 1024, "most requests under way at once; beyond it the answer is 429", 1),
    SettingSpec("server.drain", float, 25.0, "seconds that open requests may take after SIGTERM", 0),
    SettingSpec(
        "server.schedules",
        list,
        ["*"],
        "the timetables that the server keeps, by name; a cluster's CronJobs keep the others",
    ),
    SettingSpec("server.timeout", float, 30.0, "seconds that a request may take", 0.001),
    SettingSpec(
        "server.stall",
        float,
        20.0,
        "seconds that a head may take to come; and a body, or the reading of an answer, beyond 256 bytes a second",
        0.1,
    ),
    SettingSpec("server.connections", int, 8192, "most connections at once; further ones are answered with 503", 1),
    SettingSpec("server.keys", list, [], "API keys as secret references; empty leaves the endpoints open", secret=True),
    SettingSpec(
        "server.logs",
        str,
        "text",
        "how `mainspring serve` tells: text on stderr, JSON lines on stdout",
        choices=("text", "json"),
    ),
    SettingSpec(
        "server.rate",
        float,
        None,
        "requests a second that each caller may make, on average; beyond it the answer is 429",
        0.001,
        1_000_000,
    ),
    SettingSpec(
        "server.burst", int, None, "requests of them that may come at once; those of a second when left out", 1
    ),
    SettingSpec(
        "server.oidc.issuer", str, None, "an OpenID Connect issuer, as its tokens name it; its tokens let in then"
    ),
    SettingSpec(
        "server.oidc.resource",
        str,
        None,
        "this server's address as clients of MCP see it; as each request names it when left out",
    ),
    SettingSpec("server.oidc.audience", list, [], "what a token must be for: one of these"),
    SettingSpec(
        "server.oidc.algorithms",
        list,
        ["RS256", "PS256", "ES256", "EdDSA"],
        "what a token may be signed with; also RS384, RS512, PS384, PS512, ES384, ES512",
    ),
    SettingSpec("server.oidc.user", str, "sub", "the claim that is the caller's name"),
    SettingSpec("server.oidc.groups", str, "groups", "the claim that is the caller's groups; a.b is b inside of a"),
    SettingSpec("server.oidc.tenant", str, None, "the claim that is the caller's tenant; no tenant when left out"),
    SettingSpec(
        "server.oidc.search_scope", str, None, "the scope that a token needs to search and read by MCP; none is asked"
    ),
    SettingSpec(
        "server.oidc.ask_scope", str, None, "the scope that a token needs to ask assistants by MCP; none is asked"
    ),
    SettingSpec("server.oidc.leeway", float, 30.0, "seconds by which the issuer's clock may differ", 0, 300),
    SettingSpec("server.oidc.refresh", float, 300.0, "seconds between two looks at the issuer's keys", 1, 86_400),
    SettingSpec("server.oidc.timeout", float, 5.0, "seconds that one answer of the issuer may take", 0.1, 60),
    SettingSpec("server.cors.origins", list, [], "origins whose pages may ask from a browser; none when empty"),
    SettingSpec("server.cors.credentials", bool, False, "whether browsers may send cookies with their requests"),
    SettingSpec("server.cors.max_age", int, 600, "seconds for which browsers may remember that", 0, 86_400),
    SettingSpec("callers.*.key", str, None, "secret reference: the API key by which a caller is known", secret=True),
    SettingSpec("callers.*.groups", list, None, "groups that the caller is in; documents may name them"),
    SettingSpec("callers.*.tenant", str, None, "the tenant whose data the caller sees, besides what is no tenant's"),
    SettingSpec("callers.*.rate", float, None, "the caller's own `server.rate`", 0.001, 1_000_000),
    SettingSpec("callers.*.burst", int, None, "the caller's own `server.burst`", 1),
    *(
        SettingSpec(f"{section}.*.{key}", type_, None, said.format(whose), least)
        for section, whose in (
            ("limits", "a caller"),
            ("tenant_limits", "a tenant's callers together"),
            ("model_limits", "all who use a model or route"),
        )
        for key, type_, said, least in (
            ("requests", int, "requests of {} to language models in a window", 0),
            ("tokens", int, "tokens of the prompts and answers of {} in a window", 0),
            ("window_s", float, "the window's length in seconds; 60 when left out", 0.001),
            ("concurrent", int, "requests of {} to language models at once", 0),
            ("money_micro", int, "what {} may spend in a period, in micro-units of money", 0),
            ("period_s", float, "the period's length in seconds; 30 days when left out", 1),
        )
    ),
    SettingSpec("prices.*.input", int, None, "micro-units of money for a million prompt tokens of a model", 0),
    SettingSpec("prices.*.cached_read", int, None, "the same for those that were read from a cache", 0),
    SettingSpec("prices.*.cache_write", int, None, "the same for those that were written to a cache", 0),
    SettingSpec("prices.*.output", int, None, "the same for generated tokens", 0),
    SettingSpec("prices.*.reasoning", int, None, "the same for tokens that a model thinks with", 0),
    SettingSpec("capacity.*.gpu", str, None, "the GPU that a language model is to run on, for `mainspring plan`"),
    SettingSpec("capacity.*.gpus", int, None, "how many share it by tensor parallelism; 1 when left out", 1),
    SettingSpec("capacity.*.config", str, None, "path of the model's config.json, relative to the project"),
    SettingSpec("capacity.*.params", float, None, "how many weights it has, when no index of safetensors tells", 1),
    SettingSpec("capacity.*.active", float, None, "weights that one token passes through; all when left out", 1),
    SettingSpec(
        "capacity.*.weights",
        str,
        None,
        "what a weight is stored as; bf16 when left out",
        choices=("bf16", "fp8", "int4"),
    ),
    SettingSpec(
        "capacity.*.cache",
        str,
        None,
        "what a number of the KV cache is stored as; bf16 when left out",
        choices=("bf16", "fp8"),
    ),
    SettingSpec(
        "capacity.*.length",
        int,
        None,
        "tokens of a sequence, prompt and answer together; the model's own limit when left out",
        1,
    ),
    SettingSpec("capacity.*.runtime", float, None, "GiB that the engine itself takes; 2 when left out", 0),
    SettingSpec(
        "capacity.*.utilisation",
        float,
        None,
        "share of the GPU's memory that the engine may take; 0.9 when left out",
        0.01,
        1,
    ),
    SettingSpec("mcp.*.url", str, None, "where an MCP server is that answers over streamable HTTP"),
    SettingSpec("mcp.*.command", list, None, "program and arguments of one that is started, in the project's folder"),
    SettingSpec("mcp.*.tools", list, None, "its tools that assistants may use, by its own names; no others are shown"),
    SettingSpec("mcp.*.timeout", float, None, "seconds of one call, and of connecting; 30 when left out", 0.001),
    SettingSpec(
        "mcp.*.headers.*",
        str,
        None,
        'a header that is sent to it, as a secret reference: "Bearer ${env:TOKEN}"',
        secret=True,
    ),
    SettingSpec("mcp.*.environment.*", str, None, "a variable that its program is given, as above", secret=True),
    SettingSpec(
        "serving.replay",
        bool,
        False,
        'whether a request may set its own moment with "now", and a label may be dated ahead',
    ),
    SettingSpec(
        "serving.trial",
        str,
        None,
        "a folder: this server is only measured, logs and counts there, judges nothing and fires no schedule",
    ),
    SettingSpec(
        "serving.protocols",
        list,
        ["oip", "kserve", "tfserving", "sagemaker", "vertex", "azureml", "torchserve"],
        "the protocols that models are served by, all on the port of the endpoints",
    ),
    SettingSpec(
        "serving.model",
        str,
        None,
        "the model of routes that name none, such as /invocations; an app's only model when left out",
    ),
    SettingSpec(
        "serving.quick_us",
        float,
        200.0,
        "microseconds up to which a call of a model is computed on the event loop; beyond them calls wait for the "
        "model's own thread, and are scored together",
        0,
    ),
    SettingSpec(
        "serving.memory",
        int,
        None,
        "bytes that models may take together: each is loaded when it is asked, and the one that was asked longest ago "
        "makes room; all are loaded at the start when left out",
        1,
    ),
    SettingSpec(
        "serving.flip",
        float,
        60.0,
        "seconds until it is told, and shown in health, that a version waits because not all workers have it",
        1,
    ),
    SettingSpec("endpoints.*.batch_rows", int, None, "most rows of several calls that are scored together", 1),
    SettingSpec("endpoints.*.batch_delay_ms", float, None, "milliseconds that a call waits for others", 0),
    SettingSpec(
        "endpoints.*.queue_rows", int, None, "most rows that wait for the model; beyond it the answer is 429", 1
    ),
    SettingSpec("endpoints.*.queue_bytes", int, None, "most bytes of them", 1),
    SettingSpec("management.enabled", bool, False, "whether the management listener (actuator, console) runs"),
    SettingSpec("management.host", str, "127.0.0.1", "address of the management listener"),
    SettingSpec("management.port", int, 8081, "port of the management listener; 0 takes a free one", 0, 65_535),
    SettingSpec("management.certificate", str, None, "file of its certificate, in PEM; plain text when left out"),
    SettingSpec("management.private_key", str, None, "file of its private key, in PEM, without a passphrase"),
    SettingSpec("management.client_ca", str, None, "file of what signs clients' certificates; they must have one then"),
    SettingSpec("management.expose", list, ["health"], "actuator pages shown over HTTP; `*` is all of them"),
    SettingSpec("management.hide", list, [], "pages that are not shown, whatever `management.expose` says"),
    SettingSpec(
        "management.access",
        str,
        "unrestricted",
        "what may be asked of the actuator: nothing, what changes nothing, or everything",
        choices=("none", "read-only", "unrestricted"),
    ),
    SettingSpec(
        "management.show_details",
        str,
        "when-authorized",
        "who sees more of health than its status; on a listener without a token everybody is authorized",
        choices=("never", "when-authorized", "always"),
    ),
    SettingSpec(
        "management.show_values",
        str,
        "never",
        "who sees the values of settings in `env` and `configprops`; secrets nobody sees",
        choices=("never", "when-authorized", "always"),
    ),
    SettingSpec("management.shutdown", bool, False, "whether the actuator has a page that ends the server"),
    SettingSpec("management.logfile", str, None, "the file that the actuator shows as the server's log"),
    SettingSpec("management.admin.url", str, None, "a Spring Boot Admin at which the server registers"),
    SettingSpec("management.admin.name", str, None, "the server's name there; the app's when left out"),
    SettingSpec("management.admin.user", str, None, "user that the admin asks for"),
    SettingSpec("management.admin.password", str, None, "secret reference: that user's password", secret=True),
    SettingSpec(
        "management.admin.service_url", str, None, "where others reach the endpoints; what was bound if left out"
    ),
    SettingSpec("management.admin.management_url", str, None, "where the admin reaches the management listener"),
    SettingSpec(
        "management.admin.share_token",
        bool,
        False,
        "whether the admin is told the management token, with which it asks the actuator",
    ),
    SettingSpec(
        "management.token",
        str,
        None,
        "secret reference: what all of the listener but health needs; beyond loopback it must be set",
        secret=True,
    ),
    SettingSpec("console.enabled", bool, False, "whether the management listener shows the console"),
    SettingSpec(
        "telemetry.otlp",
        str,
        None,
        "an OpenTelemetry collector (OTLP over HTTP) that gets spans of requests, to language models and all others",
    ),
    SettingSpec(
        "telemetry.sample",
        float,
        0.05,
        "the share of requests that become spans, beside those that failed, were slow, or whose caller keeps the trace",
        0,
        1,
    ),
    SettingSpec("telemetry.slow_ms", float, 1000.0, "milliseconds from which a request is slow", 0),
    SettingSpec("telemetry.otlp_token", str, None, "secret reference: the collector's bearer token", secret=True),
    SettingSpec("engine.workers", int, 0, "steps run at once; 0 is one a core", 0),
    SettingSpec("values.*", object, None, "a value of your own, such as a secret that a step declares by this key"),
    SettingSpec(
        "features.replay",
        float,
        0.01,
        "share of the answers of endpoints whose features are computed again offline and compared; 0 is none",
        0,
        1,
    ),
    SettingSpec("release.folder", str, None, "the release that an image carries; `mainspring build` sets it there"),
    SettingSpec("image.base", str, None, "the image to build on; the official slim Python when left out"),
    SettingSpec("image.repository", str, None, "where images are pushed: registry.example.com/team/name"),
    SettingSpec("image.profile", str, None, "the profile that the image runs; the one of the command when left out"),
    SettingSpec("image.platforms", list, ["linux/amd64"], "what it runs on: linux/amd64, linux/arm64"),
    SettingSpec("image.python", str, None, "the base's Python; what the base says, or the builder's, when left out"),
    SettingSpec("image.glibc", str, "2.36", "the C library of the base: no wheel may want a newer one"),
    SettingSpec(
        "image.compression", str, "gzip", "zstd is for runtimes that are known to read it", choices=("gzip", "zstd")
    ),
    SettingSpec("image.exclude", list, [], "patterns of files of the project that are not in the image"),
    SettingSpec("image.wheels", list, [], "folders with wheels of your own, relative to the project"),
    SettingSpec("gate.set_aside", float, 0.05, "most rows set aside, as a share of those read", 0, 1),
    SettingSpec("gate.leakage", float, 0.99, "how well one input alone may order the labels, to 1", 0, 1),
    SettingSpec("gate.calibration", float, 0.05, "most that scores may differ from how often they come true", 0, 1),
    SettingSpec("gate.fair", list, [], "columns, slices of a model, whose groups must be served alike"),
    SettingSpec("gate.fairness", float, 0.05, "most that the metric may differ between groups, beyond chance", 0),
    SettingSpec("gate.drift", float, 0.3, "most that the scores of both may differ: 0 equal, 1 disjoint", 0, 1),
    SettingSpec("gate.slower", float, 0.25, "most that the challenger may take longer, as a share", 0),
    SettingSpec("gate.larger", float, 0.5, "most that it may take more memory, as a share", 0),
    SettingSpec("gate.rounds", int, 10, "rounds in which challenger and champion are timed side by side", 3, 1000),
    SettingSpec("ci.models", list, [], "models that CI trains and judges; all that have an endpoint when left out"),
    SettingSpec("ci.profile", str, None, "the profile that CI runs under; it names stores that outlive a runner"),
    SettingSpec("ci.schedule", str, "17 3 * * 1", "when CI trains anew, as cron, UTC; empty is never"),
    SettingSpec("ci.cooldown", str, "24h", "least time between two trainings that drift may start"),
    SettingSpec("ci.weekly", int, 3, "most such trainings in seven days", 1),
    SettingSpec("ci.dispatch.url", str, None, "where alarms start a training in CI, instead of in the server"),
    SettingSpec("ci.dispatch.kind", str, "github", "whose address that is", choices=("github", "gitlab", "jenkins")),
    SettingSpec("ci.dispatch.ref", str, "main", "the branch that GitLab runs then"),
    SettingSpec(
        "ci.dispatch.token", str, None, "secret reference: the token that starts it; USER:TOKEN of Jenkins", secret=True
    ),
    SettingSpec("ci.python", str, "3.12", "the Python of CI's runners"),
    SettingSpec("ci.runner", str, "ubuntu-latest", "the runner's label"),
    SettingSpec("ci.target", str, None, "the target that CI deploys to, as `mainspring deploy --target` takes it"),
    SettingSpec("ci.champion_url", str, None, "the Prometheus page of the champion's pods"),
    SettingSpec("ci.canary_url", str, None, "the Prometheus page of the canary's pods"),
    SettingSpec("ci.watch", str, "10m", "how long a canary is watched at each share of the requests"),
    SettingSpec("ci.cloud", str, None, "where to sign in without a key, by OIDC", choices=("aws", "azure", "gcp")),
    SettingSpec("monitoring.every", float, 1.0, "seconds between two looks at the prediction log", 0.01),
    SettingSpec("monitoring.block", float, 3600.0, "least seconds of a block of an assistant's runs", 0.1),
    SettingSpec("monitoring.block_runs", int, 20, "least runs in it; a block waits until it has as many", 5),
    SettingSpec("traces.days", float, 30.0, "days that traces of assistants' runs are kept", 0),
    SettingSpec("traces.most", int, 10_000, "most traces that are kept; the oldest go first", 0),
)
"""The settings, in the order the docs show them."""
