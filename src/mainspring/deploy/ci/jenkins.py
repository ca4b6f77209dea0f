"""A declarative Jenkinsfile."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.deploy.ci import commands
from mainspring.deploy.ci.blocks import closed, opened
from mainspring.deploy.ci.integration import SHARES, Integration

__all__ = ["jenkinsfile"]

_ABOUT = """// Written by `mainspring build --ci jenkins`, which writes it again from mainspring.toml.
// What stands between the marks is yours and is kept.
"""


def jenkinsfile(found: Integration) -> dict[str, str]:
    """The file, by its path below the repository."""
    return {"Jenkinsfile": _ABOUT + "\n".join(_pipeline(found)) + "\n"}


def _pipeline(found: Integration) -> Iterable[str]:
    yield "pipeline {"
    yield from _in(_head(found))
    yield "    stages {"
    for stage in _stages(found):
        yield from _in(_in(stage))
    yield from _in(_in(_yours("stages", "further stages")))
    yield "    }"
    yield from _in(_always(found))
    yield "}"


def _head(found: Integration) -> Iterable[str]:
    yield "agent { label 'python' }"
    yield "options {"
    yield "    disableConcurrentBuilds()"
    yield "    timeout(time: 5, unit: 'HOURS')"
    yield "    buildDiscarder(logRotator(numToKeepStr: '50'))"
    yield "}"
    if found.schedule:
        yield f"triggers {{ cron('TZ=UTC\\n{found.schedule}') }}"
    yield "parameters {"
    yield "    booleanParam(name: 'DRIFT', defaultValue: false, description: 'started by an alarm of drift')"
    yield "}"
    yield "environment {"
    yield '    PATH = "${env.WORKSPACE}/.venv/bin:${env.PATH}"'
    if found.profile:
        yield f"    MAINSPRING_PROFILE = '{found.profile}'"
    if found.target:
        yield f"    TARGET = '{found.target}'"
    if found.champion_url and found.canary_url:
        yield f"    CHAMPION_URL = '{found.champion_url}'"
        yield f"    CANARY_URL = '{found.canary_url}'"
    yield from _in(_yours("environment", "further variables"))
    yield "}"


def _stages(found: Integration) -> Iterable[Iterable[str]]:
    back = "../" * (0 if found.folder == "." else found.folder.count("/") + 1)
    yield _stage(
        "Install",
        _steps([*_sh(f"python3 -m venv {back}.venv\n{commands.install(back + found.lock)}", found), *_setup()]),
    )
    yield _stage("Check", _steps([*_sh(commands.CHECK, found), *_yours("tests", "the project's own tests")]))
    yield _stage("Due", [*_when("expression { params.DRIFT }"), *_due(found)])
    yield _stage("Gate", _gate(found))
    if found.image:
        yield _stage("Image", [*_released(), *_steps(_image(found))])
        if found.target:
            yield _stage("Approve", [*_released(), *_steps(["input message: 'Give it to 5 % of the requests?'"])])
            yield _stage("Rollout", _rollout(found))


def _setup() -> Iterable[str]:
    return _yours("setup", "what else it needs")


def _due(found: Integration) -> Iterable[str]:
    """No training before the cooldown is over, and no more than so many in a week."""
    command = f"{commands.DUE} {' '.join(found.models)} --strict"
    return _steps(["script {", f"    env.DUE = {_status(command, found)} == 0 ? 'yes' : 'no'", "}"])


def _status(command: str, found: Integration) -> str:
    inside = command if found.folder == "." else f"cd {found.folder} && {command}"
    return f"sh(returnStatus: true, script: '{inside}')"


def _gate(found: Integration) -> Iterable[str]:
    yield from _when("not { environment name: 'DUE', value: 'no' }")
    yield "matrix {"
    yield "    axes {"
    yield "        axis {"
    yield "            name 'MODEL'"
    yield f"            values {', '.join(repr(name) for name in found.models)}"
    yield "        }"
    yield "    }"
    yield "    stages {"
    yield from _in(_in(_stage("Judge", _steps(_sh(commands.GATE, found)))))
    yield "    }"
    yield "}"


def _image(found: Integration) -> Iterable[str]:
    inside = "" if found.folder == "." else f"cd {found.folder} && "
    yield "script {"
    yield f"    env.IMAGE = sh(returnStdout: true, script: '{inside}{commands.IMAGE}').trim()"
    yield "}"
    yield from _sh("grype sbom:sbom/image.cdx.json --fail-on high", found)
    yield from _sh(commands.SIGN, found)


def _rollout(found: Integration) -> Iterable[str]:
    yield from _released()
    steps: list[str] = []
    for share in SHARES:
        steps += _sh(commands.rollout(share), found)
        if share != SHARES[-1]:
            steps += _sh(commands.watched(found), found)
    yield from _steps(steps)
    yield "post {"
    yield "    unsuccessful {"
    yield from _in(_in(_sh(commands.BACK, found)))
    yield "    }"
    yield "}"


def _released() -> Iterable[str]:
    """On the main branch, and not after a training that was not due."""
    yield from _when("branch 'main'", "not { environment name: 'DUE', value: 'no' }")


def _always(found: Integration) -> Iterable[str]:
    folder = "" if found.folder == "." else f"{found.folder}/"
    pattern = f"{folder}{commands.VERDICTS}/*.json"
    yield "post {"
    yield "    always {"
    yield f"        archiveArtifacts artifacts: '{pattern}', allowEmptyArchive: true"
    yield "    }"
    yield from _in(_yours("post", "whom to tell"))
    yield "}"


# -- the language -----------------------------------------------------------------------------------------------------


def _stage(name: str, body: Iterable[str]) -> Iterable[str]:
    yield f"stage('{name}') {{"
    yield from _in(body)
    yield "}"


def _steps(lines: Iterable[str]) -> Iterable[str]:
    yield "steps {"
    yield from _in(lines)
    yield "}"


def _when(*conditions: str) -> Iterable[str]:
    yield "when {"
    for condition in conditions:
        yield f"    {condition}"
    yield "}"


def _sh(script: str, found: Integration) -> Iterable[str]:
    """A shell step; Jenkins runs it with -e."""
    lines = [*([] if found.folder == "." else [f"cd {found.folder}"]), *script.split("\n")]
    if len(lines) == 1:
        return [f"sh '{lines[0]}'"]
    return ["sh '''", *("    " + line for line in lines), "'''"]


def _yours(name: str, hint: str) -> Iterable[str]:
    yield opened(name, hint, "//")
    yield closed(name, "//")


def _in(lines: Iterable[str]) -> Iterable[str]:
    return (f"    {line}" if line else line for line in lines)
