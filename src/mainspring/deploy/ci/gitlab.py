"""A pipeline for GitLab CI."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.deploy.ci import commands
from mainspring.deploy.ci.integration import SHARES, Integration
from mainspring.deploy.ci.writing import Lines, Yours, written

__all__ = ["pipeline"]

_ABOUT = """# Written by `mainspring build --ci gitlab`, which writes it again from mainspring.toml.
# What stands between the marks is yours and is kept. Schedules are made in GitLab: Build, Pipeline schedules.
"""
_MAIN = '$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH && $CI_PIPELINE_SOURCE != "merge_request_event"'


def pipeline(found: Integration) -> dict[str, str]:
    """The file, by its path below the repository."""
    return {".gitlab-ci.yml": _ABOUT + written(_document(found))}


def _document(found: Integration) -> Mapping[object, object]:
    back = "../" * (0 if found.folder == "." else found.folder.count("/") + 1)
    before = [] if found.folder == "." else [f"cd {found.folder}"]
    variables: dict[object, object] = {"PIP_CACHE_DIR": "$CI_PROJECT_DIR/.cache/pip"}
    if found.profile:
        variables["MAINSPRING_PROFILE"] = found.profile
    if found.target:
        variables["TARGET"] = found.target
    if found.champion_url and found.canary_url:
        variables |= {"CHAMPION_URL": found.champion_url, "CANARY_URL": found.canary_url}
    variables[Yours("variables", "further variables")] = None
    stages = ["check", "gate", "ship", "rollout"][: 2 if not found.image else 4 if found.target else 3]
    document: dict[object, object] = {
        "stages": stages,
        "variables": variables,
        "default": {
            "image": f"python:{found.python}-slim",
            "timeout": "3h",
            "cache": {"key": {"files": [found.lock]}, "paths": [".cache/pip/"]},
            "before_script": Lines([*before, commands.install(back + found.lock)]),
        },
        "workflow": {
            "rules": _rules('$CI_PIPELINE_SOURCE == "merge_request_event"', "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH")
        },
        "check": {"stage": "check", "script": Lines(commands.CHECK.split("\n"))},
        "gate": _gate(found),
    }
    if found.image:
        document["ship"] = _image(found)
        if found.target:
            document |= _rollout(found)
    document[Yours("jobs", "further jobs")] = None
    return document


def _rules(*conditions: str) -> list[object]:
    return [{"if": condition} for condition in conditions]


def _gate(found: Integration) -> object:
    folder = "" if found.folder == "." else f"{found.folder}/"
    due = f'if [ "${{DRIFT:-}}" = "yes" ]; then {commands.DUE} {" ".join(found.models)} --strict; fi'
    return {
        "stage": "gate",
        "parallel": {"matrix": [{"MODEL": list(found.models)}]},
        "script": Lines([due, commands.GATE]),
        "artifacts": {"when": "always", "paths": [f"{folder}{commands.VERDICTS}/"], "expire_in": "2 weeks"},
    }


def _image(found: Integration) -> object:
    folder = "" if found.folder == "." else f"{found.folder}/"
    script = [
        f'IMAGE="$({commands.IMAGE})"',
        "grype sbom:sbom/image.cdx.json --fail-on high",
        *commands.SIGN.split("\n"),
        'echo "IMAGE=$IMAGE" > image.env',
    ]
    return {
        "stage": "ship",
        "rules": _rules(_MAIN),
        "id_tokens": {"SIGSTORE_ID_TOKEN": {"aud": "sigstore"}},
        "script": Lines(script),
        "artifacts": {"reports": {"dotenv": f"{folder}image.env"}, "paths": [f"{folder}sbom/"]},
    }


def _rollout(found: Integration) -> dict[object, object]:
    script: list[object] = []
    for share in SHARES:
        script.append(commands.rollout(share))
        if share != SHARES[-1]:
            script.append(commands.watched(found))
    after = [] if found.folder == "." else [f"cd {found.folder}"]
    back = f'if [ "$CI_JOB_STATUS" != "success" ]; then {commands.BACK}; fi'
    return {
        "rollout": {
            "stage": "rollout",
            "rules": [{"if": _MAIN, "when": "manual"}],
            "environment": {"name": "production"},
            "resource_group": "production",
            "interruptible": False,
            "script": Lines(script),
            "after_script": Lines([*after, back]),
        }
    }
