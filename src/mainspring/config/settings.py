"""Layered settings: defaults < file < profile < environment < flag; every value knows where it came from."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from mainspring.config.lines import Written, read_toml
from mainspring.config.platform import asked_at
from mainspring.config.schema import NAMED, PORTS, SETTINGS, SettingSpec, misfit
from mainspring.declare.data import did_you_mean
from mainspring.errors import ConfigError

__all__ = ["DEV_DEFAULT", "FILE", "Setting", "Settings", "find_project", "load_settings", "reveal"]

FILE = "mainspring.toml"
DEV_DEFAULT = "default of profile dev"
"""The origin of values that nobody wrote and that profile dev has otherwise than others."""
_SECRET = re.compile(r"^(env|file):(.+)$")
_HIDDEN = "******"
_INLINE = re.compile(r"\$\{(env|file):([^}]+)\}")
_LIMITED = ("limits", "tenant_limits", "model_limits")
_OF_NAMES = ("sources", "documents", "endpoints", "callers", *_LIMITED, "prices", "capacity", "mcp")
"""Sections with a part for each of the app's names."""
_DEV = {
    "management.enabled": True,
    "console.enabled": True,
    "serving.replay": True,
    "management.expose": ["health", "info", "conditions", "prometheus", "rollouts"],
}


class Setting(msgspec.Struct, frozen=True):
    """A value and where it was written: ``mainspring.toml:14 [profiles.prod]``, a variable, ``--port``."""

    key: str
    value: object
    origin: str

    @property
    def secret(self) -> bool:
        """Whether the value is, or holds, a reference to a secret."""
        return isinstance(self.value, str) and bool(_SECRET.match(self.value) or _INLINE.search(self.value))

    def references(self) -> Iterator[Setting]:
        """The value's references to secrets, each as a setting of its own: of a list, one by one."""
        for value in self.value if isinstance(self.value, list) else [self.value]:
            one = Setting(self.key, value, self.origin)
            if one.secret:
                yield one

    def with_references(self, turn: Callable[[str, str], str]) -> str:
        """The value as text with each reference turned into another: of its kind, ``env`` or ``file``, and its name.

        The parts of a list are set apart by commas, as a variable holds them.
        """
        if isinstance(self.value, list):
            return ",".join(Setting(self.key, item, self.origin).with_references(turn) for item in self.value)
        text = str(self.value)
        if whole := _SECRET.match(text):
            return turn(whole[1], whole[2])
        return _INLINE.sub(lambda match: f"${{{turn(match[1], match[2])}}}", text)

    def shown(self) -> object:
        """The value as people may see it: references stay references, secrets and passwords in URLs are hidden."""
        if isinstance(self.value, list):
            return [Setting(self.key, item, self.origin).shown() for item in self.value]
        if self.secret or not isinstance(self.value, str):
            return self.value
        if (spec := _spec(self.key)) is not None and spec.secret:
            return _HIDDEN
        return re.sub(r"(://[^:/@\s]*):[^@/\s]+@", rf"\1:{_HIDDEN}@", self.value)


class Settings(msgspec.Struct, frozen=True):
    """All settings of a project under one profile.

    Attributes:
        profile: the active profile.
        project: the project's folder.
        values: the settings that were written somewhere, and the defaults, by key.
        profiles: the names of the profiles in the file.
    """

    profile: str
    project: Path
    values: Mapping[str, Setting] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    profiles: tuple[str, ...] = ()

    def setting(self, key: str) -> Setting | None:
        """The setting of that key, or None when it is neither written nor has a default."""
        return self.values.get(key)

    def text(self, key: str) -> str | None:
        """A text setting, or None."""
        found = self.values.get(key)
        return None if found is None or found.value is None else str(found.value)

    def number(self, key: str) -> float:
        """A numeric setting that has a default."""
        return float(self.values[key].value)  # type: ignore[arg-type]

    def whole(self, key: str) -> int:
        """A whole-number setting that has a default."""
        return int(self.values[key].value)  # type: ignore[call-overload, no-any-return]

    def flag(self, key: str) -> bool:
        """A boolean setting that has a default."""
        return bool(self.values[key].value)

    def words(self, key: str) -> tuple[str, ...]:
        """A list setting that has a default."""
        return tuple(self.values[key].value)  # type: ignore[arg-type]

    def section(self, prefix: str) -> dict[str, Setting]:
        """The settings below a prefix, by the rest of their key."""
        return {key[len(prefix) + 1 :]: item for key, item in self.values.items() if key.startswith(prefix + ".")}

    def secret(self, key: str) -> str | None:
        """A text setting with its secret references replaced by the secrets.

        Raises:
            ConfigError: MS-3007, the secret is not there.
        """
        found = self.values.get(key)
        return None if found is None or found.value is None else reveal(found, self.project)


def reveal(setting: Setting, project: Path) -> str:
    """The value with ``env:NAME``, ``file:PATH`` and ``${env:NAME}`` replaced; never print what this returns.

    Raises:
        ConfigError: MS-3007, a referenced variable or file is not there.
    """

    def fetch(kind: str, name: str) -> str:
        try:
            return os.environ[name] if kind == "env" else (project / name).read_text("utf-8").rstrip("\n")
        except (KeyError, OSError) as error:
            raise ConfigError(
                f"secret {kind}:{name} of {setting.key} is not there",
                code="MS-3007",
                why="the variable is not set" if kind == "env" else f"the file cannot be read: {type(error).__name__}",
                origin=setting.origin,
                fix=f"export {name}=..." if kind == "env" else f"write the secret to {name}",
            ) from error

    text = str(setting.value)
    if whole := _SECRET.match(text):
        return fetch(whole[1], whole[2])
    return _INLINE.sub(lambda match: fetch(match[1], match[2]), text)


def find_project(start: Path) -> Path:
    """The nearest folder at or above `start` that holds mainspring.toml.

    Raises:
        ConfigError: MS-3002, there is none.
    """
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise ConfigError(
        f"no {FILE} here or above",
        code="MS-3002",
        why="a project is a folder with this file",
        origin=start.name or str(start),
        fix="mainspring new NAME, or change into a project's folder",
    )


def load_settings(
    project: Path,
    *,
    profile: str | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    flags: Mapping[str, object] = MappingProxyType({}),
) -> Settings:
    """The settings of a project: defaults < file < profile < environment < flags.

    Args:
        project: the folder with mainspring.toml.
        profile: the profile; otherwise ``MAINSPRING_PROFILE`` of the environment, otherwise ``dev``.
        environment: the process's environment; ``MAINSPRING_ONLINE_URL`` is ``online.url``.
        flags: settings given on the command line, by key.

    Raises:
        ConfigError: MS-3001 to MS-3006: no TOML, unknown profile, unknown setting, wrong type, out of range.
    """
    written = read_toml(_text_of(project / FILE), FILE)
    active = profile or environment.get("MAINSPRING_PROFILE") or "dev"
    profiles = sorted({item.path[1] for item in written if item.path[0] == "profiles" and len(item.path) > 1})
    if active != "dev" and active not in profiles:
        raise ConfigError(
            f"profile {active!r} is not in {FILE}",
            code="MS-3003",
            why=f"profiles there: {', '.join(['dev', *profiles])}",
            origin="--profile" if profile else "MAINSPRING_PROFILE",
            fix=f"add [profiles.{active}] to {FILE}",
        )
    values = {spec.key: Setting(spec.key, spec.default, "default") for spec in SETTINGS if "*" not in spec.key}
    if active == "dev":
        values |= {key: Setting(key, value, DEV_DEFAULT) for key, value in _DEV.items()}
    values |= {item.key: item for item in _from_file(written, active)}
    values |= {item.key: item for item in _from_platform(environment)}
    values |= {item.key: item for item in _from_environment(environment, values)}
    values |= {
        key: _checked(Setting(key, value, _flag(key, value))) for key, value in flags.items() if value is not None
    }
    return Settings(active, project, MappingProxyType(values), tuple(profiles))


def _text_of(path: Path) -> str:
    """The file's text; editors on Windows begin it with a mark of its encoding."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{FILE} cannot be read", code="MS-3002", why=str(error.strerror), fix="mainspring new NAME makes a project"
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{FILE} is not valid TOML",
            code="MS-3001",
            why=f"byte {content[error.start]:#04x} of line {line} is no UTF-8",
            origin=f"{FILE}:{line}",
            fix="save the file as UTF-8",
        ) from error


def _flag(key: str, value: object) -> str:
    """The option that a setting was given by; what has several values is said one by one: ``--platform``."""
    name = key.rpartition(".")[2].replace("_", "-")
    return f"--{name.removesuffix('s') if isinstance(value, list) else name}"


def _from_file(written: Iterable[Written], profile: str) -> Iterator[Setting]:
    chosen: list[Setting] = []
    for item in written:
        if item.value == {} and _is_section(item.path[2:] if item.path[0] == "profiles" else item.path):
            continue  # an empty table sets nothing
        place = f"{FILE}:{item.line}" + (f" [{item.table}]" if item.table else "")
        if item.path[0] == "profiles":
            setting = _checked(Setting(".".join(item.path[2:]), item.value, place))
            if item.path[1] == profile:
                chosen.append(setting)
        else:
            yield _checked(Setting(".".join(item.path), item.value, place))
    yield from chosen


def _from_platform(environment: Mapping[str, str]) -> Iterator[Setting]:
    """Where the platform asks that runs the process as its container; no file can know."""
    asked = asked_at(environment)
    if asked is not None:
        host, port, name = asked
        yield _checked(Setting("server.host", host, name))
        yield _checked(Setting("server.port", int(port) if port.isdecimal() else port, name))


def _from_environment(environment: Mapping[str, str], known: Mapping[str, Setting]) -> Iterator[Setting]:
    for name, text in environment.items():
        if not name.startswith("MAINSPRING_") or name == "MAINSPRING_PROFILE":
            continue
        key = _key_of(name.removeprefix("MAINSPRING_").lower(), known)
        if key is not None:
            yield _checked(Setting(key, text, name))


def _key_of(words: str, known: Mapping[str, Setting]) -> str | None:
    """The setting an environment variable stands for; None for variables that are other tools' business."""
    for key in known:
        if key.replace(".", "_") == words:
            return key
    head, _, rest = words.partition("_")
    if (head in PORTS or head == "values") and rest:
        return f"{head}.{rest}"
    name, _, last = rest.rpartition("_")
    if head in NAMED and name:  # a key of two words cannot be told from a name of two
        return f"{head}.{name}.{last}"
    section = next((one for one in _OF_NAMES if words.startswith(f"{one}_")), None)
    return None if section is None else _of_a_name(section, words[len(section) + 1 :].split("_"))


def _of_a_name(section: str, words: Sequence[str]) -> str | None:
    """The setting of a section with names; a name ends where a setting begins."""
    for cut in range(1, len(words)):
        key = f"{section}.{'_'.join(words[:cut])}.{'_'.join(words[cut:])}"
        if _spec(key):
            return key
    return None


def _parts(value: object) -> object:
    """A variable's text as a list: its parts between commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _spec(key: str) -> SettingSpec | None:
    parts = key.split(".")
    for spec in SETTINGS:
        pattern = spec.key.split(".")
        if len(pattern) == len(parts) and all(a in ("*", b) for a, b in zip(pattern, parts, strict=True)):
            return spec
    return None


def _is_section(path: tuple[str, ...]) -> bool:
    """Whether a table of that name may hold settings."""
    if not path or (len(path) == 1 and path[0] in PORTS) or (len(path) < 3 and path[0] in NAMED):
        return True
    patterns = [spec.key.split(".") for spec in SETTINGS]
    return any(
        len(pattern) > len(path) and all(a in ("*", b) for a, b in zip(pattern, path, strict=False))
        for pattern in patterns
    )


def _nearest(key: str) -> str:
    """The remedy for an unknown key: the nearest one, else those of its section, else the sections."""
    head, *rest = key.split(".")
    name = rest[0] if head in (*_OF_NAMES, *NAMED) and len(rest) > 1 else "NAME"
    known = [spec.key.replace("*", name) for spec in SETTINGS]
    known += [f"{port}.{part}" for port in PORTS for part in ("adapter", "url")]
    known += [f"{section}.{name}.{part}" for section in NAMED for part in ("adapter", "url")]
    sections = list(dict.fromkeys([*(one.partition(".")[0] for one in known), "profiles"]))
    if head in sections:
        return did_you_mean(key, [one for one in known if one.partition(".")[0] == head])
    near = difflib.get_close_matches(head, sections, n=1, cutoff=0.75)
    return (
        f"did you mean {near[0]!r}?" if near else f"your own go below [values]; known sections: {', '.join(sections)}"
    )


def _checked(setting: Setting) -> Setting:
    head, _, rest = setting.key.partition(".")
    if ((head in PORTS or head == "values") and rest) or (head in NAMED and "." in rest):
        return setting  # the adapter that is chosen checks its own, and what the user's own are is the user's business
    spec = _spec(setting.key)
    if spec is None:
        raise ConfigError(
            f"setting {setting.key!r} is unknown",
            code="MS-3004",
            origin=setting.origin,
            fix=_nearest(setting.key),
        )
    outside = setting.origin.startswith("MAINSPRING_")
    given = _parts(setting.value) if outside and spec.type is list else setting.value
    try:
        value: object = msgspec.convert(given, spec.type, strict=not outside)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"setting {setting.key} = {_HIDDEN if spec.secret else repr(setting.value)} has the wrong type",
            code="MS-3005",
            why=str(error),
            origin=setting.origin,
            fix=f"it is {spec.meaning} ({spec.type.__name__})",
        ) from error
    if why := misfit(spec, value):
        raise ConfigError(
            f"setting {setting.key} = {setting.shown()} is not possible",
            code="MS-3006",
            why=why,
            origin=setting.origin,
            fix=f"it is {spec.meaning}",
        )
    return Setting(setting.key, value, setting.origin)
