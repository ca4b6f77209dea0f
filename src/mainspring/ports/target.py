"""Targets: where an app is deployed to. Render and plan are pure; what is there is told by tags and labels alone.

The way is the same for every target: preflight -> render -> observe -> plan -> apply -> status -> traffic or rollback
-> destroy. A `Revision` is immutable; going back is going to an older one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

__all__ = [
    "App", "Change", "Cost", "Finding", "Health", "ImageFacts", "Job", "LanguageModel", "Observed", "Part", "Plan",
    "Probe", "Release", "Rendered", "Revision", "Secret", "Split", "Target", "Workload", "World", "digest_of",
]  # fmt: skip


class Secret(msgspec.Struct, frozen=True):
    """A secret that the app reads: a reference, never its value.

    Attributes:
        key: the setting that refers to it: ``online.url``.
        variable: the variable that overrides that setting: ``MAINSPRING_ONLINE_URL``.
        text: the setting's value, with ``{NAME}`` where the path of a secret's file goes:
            ``redis://:${file:{REDIS_PASSWORD}}@cache:6379/0``.
        names: the secrets' names in that text, each a key of the target's store of secrets.
    """

    key: str
    variable: str
    text: str
    names: tuple[str, ...]


class Job(msgspec.Struct, frozen=True):
    """What is run at given times.

    Attributes:
        name: in letters, digits and dashes.
        cron: five fields.
        zone: the time zone of these: ``Europe/Berlin``.
        arguments: of the container: ``("run", "pipeline/nightly")``.
    """

    name: str
    cron: str
    zone: str
    arguments: tuple[str, ...]


class LanguageModel(msgspec.Struct, frozen=True):
    """A declared language model for which the profile names GPUs.

    Attributes:
        name: its declared name, by which requests ask for it.
        gpus: how many share it by tensor parallelism.
        length: tokens of a sequence, prompt and answer together.
        utilisation: share of a GPU's memory that the engine may take.
        weights: bytes of its weights, on all GPUs together.
    """

    name: str
    gpus: int
    length: int
    utilisation: float
    weights: float


class App(msgspec.Struct, frozen=True):
    """What is declared of an app, as far as a target needs it.

    Attributes:
        name: the app's name, in small letters, digits and dashes.
        endpoints: the names of its endpoints.
        jobs: its timetables that a cron can say.
        kept: the names of the others, which the server keeps.
        secrets: the secrets that its settings refer to.
        language_models: those that the target may run on GPUs.
        embedded: the stores that live inside each process: replicas do not share them.
        counted_apart: whether its budgets are counted by each process for itself.
        grace: seconds that open requests may take after SIGTERM.
    """

    name: str
    endpoints: tuple[str, ...] = ()
    jobs: tuple[Job, ...] = ()
    kept: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    language_models: tuple[LanguageModel, ...] = ()
    embedded: tuple[str, ...] = ()
    counted_apart: bool = False
    grace: float = 25.0


class Release(msgspec.Struct, frozen=True):
    """What is run: immutable.

    Attributes:
        image: ``registry.example.com/team/name@sha256:...``; a digest, never a tag.
        models: the digest of each model that the image carries, by name.
        variables: the environment of the process besides what the image sets; no secret is among them.
    """

    image: str
    models: dict[str, str] = {}
    variables: dict[str, str] = {}


class Revision(msgspec.Struct, frozen=True):
    """An app as it was declared, and its release: all that a target renders from, besides its own settings."""

    app: App
    release: Release

    @property
    def id(self) -> str:
        """16 hex digits of all of it."""
        return digest_of(self)


class Split(msgspec.Struct, frozen=True):
    """A second revision beside the first, and the share of the traffic that it gets, in percent."""

    revision: Revision
    percent: int


class World(msgspec.Struct, frozen=True):
    """What a target's side can do, which decides how things are written there.

    Attributes:
        version: the target's own version: ``(1, 30)``.
        kinds: optional kinds that it knows, such as ``ServiceMonitor``; None is not known, and taken for all.
    """

    version: tuple[int, int]
    kinds: tuple[str, ...] | None = None

    def knows(self, kind: str) -> bool:
        """Whether it knows an optional kind."""
        return self.kinds is None or kind in self.kinds


class Finding(msgspec.Struct, frozen=True):
    """What a look before the work found.

    Attributes:
        level: an ``error`` stops; a ``warning`` does not.
        what: one clause.
        fix: what to do.
    """

    level: Literal["error", "warning"]
    what: str
    fix: str = ""


class ImageFacts(msgspec.Struct, frozen=True):
    """What an image says of itself, in its config.

    Attributes:
        user: who its process is: ``10001:10001``; empty is root.
        entrypoint: what it runs.
        platforms: what it is made for: ``linux/amd64``.
        profile: the profile that it was built for; empty when it does not say.
        ray: the version of Ray whose commands it has; empty when it has none.
    """

    user: str
    entrypoint: tuple[str, ...]
    platforms: tuple[str, ...]
    profile: str = ""
    ray: str = ""


class Rendered(msgspec.Struct, frozen=True):
    """The objects of a revision, in the order in which they are written."""

    app: str
    revision: str
    objects: tuple[dict[str, Any], ...]
    canary: str = ""


class Change(msgspec.Struct, frozen=True):
    """What would be done with one object.

    Attributes:
        what: ``create``, ``update``, ``replace`` (delete, then create), ``adopt`` (one of that name that is not ours)
            or ``delete``.
        url: which: ``apps/v1/Deployment/flights-server``.
        fields: for an update each field: its path, what is there, what would be.
        conflicts: the owners of fields that are to be ours.
    """

    what: Literal["create", "update", "replace", "adopt", "delete"]
    url: str
    fields: tuple[tuple[str, str, str], ...] = ()
    conflicts: tuple[str, ...] = ()


class Cost(msgspec.Struct, frozen=True):
    """What a plan comes to, as far as its target can say it.

    Attributes:
        now: what is asked for now, by name: ``cpu`` in cores, ``memory_gib``, ``gpu``, ``pods``.
        least: the same once the plan is carried out, with the least replicas.
        most: with the most.
        hourly: these three in money an hour; None when no prices are known.
        currency: of that money.
    """

    now: dict[str, float]
    least: dict[str, float]
    most: dict[str, float]
    hourly: tuple[float, float, float] | None = None
    currency: str = ""


class Plan(msgspec.Struct, frozen=True, tag_field="made_by", tag="mainspring deploy plan"):
    """What an apply would do; it can be kept in a file.

    Attributes:
        target: the name under which the target's settings are.
        revision: what is to run.
        split: a second revision beside it, or None.
        changes: what would be done, in order; empty when all is as it should be.
        hash: of the changes and of what was there: another one means that the world has moved.
        format: 1.
        cost: what it comes to; not part of the hash.
    """

    target: str
    revision: Revision
    split: Split | None
    changes: tuple[Change, ...]
    hash: str
    format: int = 1
    cost: Cost | None = None


class Part(msgspec.Struct, frozen=True):
    """One piece of what is deployed.

    Attributes:
        url: which.
        state: as `Health.state`.
        ready: replicas that answer.
        wanted: replicas that should.
        why: what keeps it from being well.
        log: its last lines.
    """

    url: str
    state: str
    ready: int = 0
    wanted: int = 0
    why: str = ""
    log: tuple[str, ...] = ()


class Health(msgspec.Struct, frozen=True):
    """How a deployment is, in the same words for every target.

    Attributes:
        state: ``absent``, ``progressing``, ``healthy``, ``degraded`` (old replicas answer, new ones do not come up) or
            ``failed``.
        revision: the revision that runs.
        image: its image.
        canary: the second revision, or empty.
        percent: the share of the traffic that it gets.
        parts: the pieces.
        revisions: all that can be gone back to, the newest first.
    """

    state: Literal["absent", "progressing", "healthy", "degraded", "failed"]
    revision: str = ""
    image: str = ""
    canary: str = ""
    percent: int = 0
    parts: tuple[Part, ...] = ()
    revisions: tuple[str, ...] = ()


class Probe(msgspec.Struct, frozen=True):
    """A question by HTTP that says how a process is: one answer below 400 is well.

    Attributes:
        path: what is asked for.
        every_s: seconds between two questions.
        timeout_s: seconds that an answer may take.
        failures: so many in a row are a fault.
    """

    path: str
    every_s: float
    timeout_s: float
    failures: int


class Workload(msgspec.Struct, frozen=True):
    """One replica of the server as a target runs it: what another machine needs to run it under the same contract.

    Attributes:
        arguments: what comes after the image's entrypoint.
        variables: the environment besides what the image sets.
        secrets: names of the secrets, each a file of its own in `secrets_at`.
        secrets_at: the folder of these.
        port: where it answers HTTP.
        startup: asked first; nothing else is until it is well.
        readiness: whether requests may come.
        liveness: whether it must be started anew.
        grace_s: seconds between SIGTERM and SIGKILL.
        user: its uid and gid.
        memory: the most bytes of it.
        scratch: the most bytes of ``/tmp``, all that it may write to.
        cpu: the most cores of it; 0 is no limit.
    """

    arguments: tuple[str, ...]
    variables: dict[str, str]
    secrets: tuple[str, ...]
    secrets_at: str
    port: int
    startup: Probe
    readiness: Probe
    liveness: Probe
    grace_s: float
    user: int
    memory: int
    scratch: int
    cpu: float = 0.0


class Observed(Protocol):
    """What is there; only its own target looks into it."""

    @property
    def world(self) -> World:
        """What the other side can do."""


Told = Callable[[str], None]


class Target(Protocol):
    """Where an app is deployed to.

    The client is the port that the adapter's capability ``client`` names, opened by whoever chose the target; None
    serves to render.
    """

    @property
    def world(self) -> World:
        """What is taken for given when nobody has asked the other side."""

    def preflight(
        self, app: App, release: Release | None, client: Any, image: ImageFacts | None = None
    ) -> list[Finding]:
        """What would keep a deployment from working: rights, version, clock, secrets, the image. Reads only."""

    def look(self, app: str, client: Any) -> World:
        """Ask the other side what it can do.

        Raises:
            RefusedError: it is of a version that is not supported.
        """

    def render(self, revision: Revision, split: Split | None, world: World) -> Rendered:
        """The objects of a revision. Pure."""

    def workload(self, rendered: Rendered) -> Workload:
        """One replica of the server, as it was rendered. Pure.

        Raises:
            UsageError: MS-5160, what is rendered cannot be run as one process.
        """

    def observe(self, rendered: Rendered, client: Any) -> Observed:
        """What is there, and what each object would become; reads only."""

    def plan(self, rendered: Rendered, observed: Any) -> tuple[tuple[Change, ...], str]:
        """What an apply would do, and the hash of that and of what was there. Pure."""

    def cost(self, rendered: Rendered, observed: Any) -> Cost | None:
        """What that comes to; None when the target cannot say. Pure."""

    def apply(
        self, rendered: Rendered, expected: str, client: Any, told: Told, *, force: bool = False, adopt: bool = False
    ) -> int:
        """Carry out the plan of that hash; how many objects were written. A killed one is gone on with by the next.

        Raises:
            RefusedError: the world has moved, somebody else applies, a field or an object is somebody else's.
        """

    def running(self, app: str, client: Any) -> tuple[Revision | None, Split | None]:
        """The revisions that run, as their immutable records say."""

    def revisions(self, app: str, client: Any) -> Sequence[Revision]:
        """All that can be gone back to, the newest first."""

    def status(self, app: str, client: Any, lines: int) -> Health:
        """How it is, with so many last lines of the log of what is not well."""

    def destroy(self, app: str, client: Any, told: Told) -> int:
        """Take away exactly what bears the app's label; how many objects were."""

    def files(self, revision: Revision, rendered: Rendered, form: str) -> Mapping[str, bytes]:
        """What was rendered as files: ``manifests``, ``helm``, ``kustomize``. Pure."""


def digest_of(value: object) -> str:
    """16 hex digits of a value's canonical JSON."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]
