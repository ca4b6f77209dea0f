"""Workflows for GitHub Actions."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.deploy.ci import commands
from mainspring.deploy.ci.actions import ACTIONS
from mainspring.deploy.ci.integration import SHARES, Integration
from mainspring.deploy.ci.writing import Said, Yours, written

__all__ = ["workflows"]

_NAME = "mainspring"
_READ = {"contents": "read"}
_ABOUT = """# Written by `mainspring build --ci github`, which writes it again from mainspring.toml.
# What stands between the marks is yours and is kept; so are raised versions of actions.
"""


def workflows(found: Integration) -> dict[str, str]:
    """The files, by their path below the repository."""
    return {
        ".github/workflows/mainspring.yml": _ABOUT + written(_main(found)),
        ".github/workflows/mainspring-report.yml": _ABOUT + written(_report(found)),
    }


def _main(found: Integration) -> Mapping[object, object]:
    on: dict[object, object] = {"pull_request": {}, "push": {"branches": ["main"]}}
    if found.schedule:
        on["schedule"] = [{"cron": found.schedule}]
    on |= {"repository_dispatch": {"types": ["drift-detected"]}, "workflow_dispatch": {}}
    on[Yours("triggers", "further events that start it")] = None
    jobs: dict[object, object] = {"check": _check(found), "due": _due(found), "gate": _gate(found)}
    if found.image:
        jobs["image"] = _image(found)
        if found.target:
            jobs["rollout"] = _rollout(found)
    jobs[Yours("jobs", "further jobs")] = None
    return {
        "name": _NAME,
        "on": on,
        "permissions": _READ,
        "concurrency": {
            "group": "mainspring-${{ github.ref }}",
            "cancel-in-progress": "${{ github.event_name == 'pull_request' }}",
        },
        **_environment(found),
        "jobs": jobs,
    }


def _environment(found: Integration) -> dict[object, object]:
    more: dict[object, object] = {"env": {"MAINSPRING_PROFILE": found.profile}} if found.profile else {}
    if found.folder != ".":
        more["defaults"] = {"run": {"working-directory": found.folder}}
    return more


def _begin(found: Integration, job: str, *, cached: bool = True) -> list[object]:
    """The checkout, Python and the locked set. What is published is installed without a cache that others fill."""
    setup: dict[object, object] = {"python-version": found.python}
    if cached:
        setup |= {"cache": "pip", "cache-dependency-path": found.lock}
    back = "../" * (0 if found.folder == "." else found.folder.count("/") + 1)
    return [
        {"uses": ACTIONS["actions/checkout"], "with": {"persist-credentials": False}},
        {"uses": ACTIONS["actions/setup-python"], "with": setup},
        {"name": "Install the locked set", "run": commands.install(back + found.lock)},
        Yours(f"{job}-setup", "what else the job needs, as steps"),
    ]


def _job(found: Integration, minutes: int, steps: list[object], **more: object) -> dict[object, object]:
    first: dict[object, object] = {key: more.pop(key) for key in ("needs", "if") if key in more}
    first |= {"runs-on": found.runner, "timeout-minutes": minutes}
    first.update(more)
    return {**first, "steps": steps}


def _check(found: Integration) -> object:
    steps = [
        *_begin(found, "check"),
        {"name": "The pipeline is what is generated, and the app has no fault", "run": commands.CHECK},
        Yours("tests", "the project's own tests, as steps"),
    ]
    return _job(found, 15, steps)


def _due(found: Integration) -> object:
    words = f'{commands.DUE} {" ".join(found.models)} >> "$GITHUB_OUTPUT"'
    steps = [*_begin(found, "due"), {"name": "Cooldown and weekly cap", "id": "due", "run": words}]
    return _job(
        found,
        10,
        steps,
        **{"if": "${{ github.event_name == 'repository_dispatch' }}"},
        outputs={"due": "${{ steps.due.outputs.due }}"},
    )


def _gate(found: Integration) -> object:
    folder = "" if found.folder == "." else f"{found.folder}/"
    steps = [
        *_begin(found, "gate"),
        {
            "name": "Train on a pinned snapshot, and judge beside the champion",
            "env": {"MODEL": "${{ matrix.model }}"},
            "run": commands.GATE,
        },
        {
            "name": "Keep the verdict for the report",
            "if": "${{ !cancelled() }}",
            "uses": ACTIONS["actions/upload-artifact"],
            "with": {
                "name": "verdict-${{ matrix.model }}",
                "path": f"{folder}{commands.VERDICTS}/",
                "if-no-files-found": "ignore",
                "retention-days": 14,
            },
        },
    ]
    due = "(needs.due.result == 'skipped' || needs.due.outputs.due == 'true')"
    return _job(
        found,
        120,
        steps,
        needs=["check", "due"],
        **{"if": f"${{{{ !cancelled() && needs.check.result == 'success' && {due} }}}}"},
        strategy={"fail-fast": False, "matrix": {"model": list(found.models)}},
    )


def _image(found: Integration) -> object:
    build = f"image=$({commands.IMAGE})\n{_OUTPUTS}"
    folder = "" if found.folder == "." else f"{found.folder}/"
    steps = [
        *_begin(found, "image", cached=False),
        {
            "name": "Sign in to the registry",
            "uses": ACTIONS["docker/login-action"],
            "with": {
                "registry": found.registry,
                "username": "${{ github.actor }}",
                "password": "${{ github.token }}",
            },
        },
        {"name": "Build and push, with the bill of materials", "id": "build", "run": build},
        {
            "name": "Scan what is in it",
            "uses": ACTIONS["anchore/scan-action"],
            "with": {
                "sbom": f"{folder}sbom/image.cdx.json",
                "fail-build": True,
                "severity-cutoff": "high",
                "output-format": "table",
            },
        },
        {"uses": ACTIONS["sigstore/cosign-installer"]},
        {
            "name": "Sign it without a key, and its bill of materials",
            "env": {"IMAGE": "${{ steps.build.outputs.image }}"},
            "run": commands.SIGN,
        },
        {
            "name": "Say where it comes from",
            "uses": ACTIONS["actions/attest-build-provenance"],
            "with": {
                "subject-name": "${{ steps.build.outputs.name }}",
                "subject-digest": "${{ steps.build.outputs.digest }}",
                "push-to-registry": True,
            },
        },
    ]
    return _job(
        found,
        60,
        steps,
        needs="gate",
        **{"if": f"${{{{ !cancelled() && needs.gate.result == 'success' && {_ON_MAIN} }}}}"},
        permissions={"contents": "read", "packages": "write", "id-token": "write", "attestations": "write"},
        outputs={"image": "${{ steps.build.outputs.image }}"},
    )


_OUTPUTS = """{
  echo "image=$image"
  echo "name=${image%@*}"
  echo "digest=${image#*@}"
} >> "$GITHUB_OUTPUT"
"""
_ON_MAIN = "github.event_name != 'pull_request' && github.ref == 'refs/heads/main'"


def _rollout(found: Integration) -> object:
    steps: list[object] = [*_begin(found, "rollout", cached=False), *_cloud(found)]
    steps += [
        {"uses": ACTIONS["sigstore/cosign-installer"]},
        {"name": "Only what this workflow has signed", "run": _VERIFY},
        Yours("sign-in", "how to reach the place that is deployed to, as steps"),
    ]
    for share in SHARES:
        begin = {"id": "begin"} if share == SHARES[0] else {}
        steps.append({"name": f"{share} % of the requests", **begin, "run": commands.rollout(share)})
        if share != SHARES[-1]:
            steps.append({"name": f"The canary at {share} %", "run": commands.watched(found)})
    steps.append(
        {
            "name": "Back to the champion",
            "if": "${{ !success() && steps.begin.conclusion != 'skipped' }}",
            "run": commands.BACK,
        }
    )
    env = {"IMAGE": "${{ needs.image.outputs.image }}", "TARGET": found.target}
    if found.champion_url and found.canary_url:
        env |= {"CHAMPION_URL": found.champion_url, "CANARY_URL": found.canary_url}
    return _job(
        found,
        180,
        steps,
        needs="image",
        **{"if": "${{ !cancelled() && needs.image.result == 'success' }}"},
        environment="production",
        concurrency={"group": "mainspring-rollout", "cancel-in-progress": False},
        permissions={"contents": "read", "packages": "read", "id-token": "write"},
        env=env,
    )


_VERIFY = """cosign verify \\
  --certificate-identity "https://github.com/$GITHUB_WORKFLOW_REF" \\
  --certificate-oidc-issuer https://token.actions.githubusercontent.com \\
  "$IMAGE"
"""


def _cloud(found: Integration) -> list[object]:
    """Signing in by OIDC: the repository's variables say as whom, and there is no key to steal."""
    if found.cloud == "aws":
        given = {"role-to-assume": "${{ vars.AWS_ROLE }}", "aws-region": "${{ vars.AWS_REGION }}"}
        return [{"uses": ACTIONS["aws-actions/configure-aws-credentials"], "with": given}]
    if found.cloud == "azure":
        names = {"client-id": "CLIENT", "tenant-id": "TENANT", "subscription-id": "SUBSCRIPTION"}
        given = {key: f"${{{{ vars.AZURE_{name}_ID }}}}" for key, name in names.items()}
        return [{"uses": ACTIONS["azure/login"], "with": given}]
    if found.cloud == "gcp":
        given = {
            "workload_identity_provider": "${{ vars.GCP_WORKLOAD_IDENTITY_PROVIDER }}",
            "service_account": "${{ vars.GCP_SERVICE_ACCOUNT }}",
        }
        return [{"uses": ACTIONS["google-github-actions/auth"], "with": given}]
    return []


def _report(found: Integration) -> Mapping[object, object]:
    """The comment is written by a workflow of the main branch: what a fork's change runs has no token to write with."""
    steps = [
        *_begin(found, "report", cached=False),
        {
            "name": "Fetch the verdicts, which anybody may have written",
            "uses": ACTIONS["actions/download-artifact"],
            "with": {
                "pattern": "verdict-*",
                "path": "${{ runner.temp }}/verdicts",
                "run-id": "${{ github.event.workflow_run.id }}",
                "github-token": "${{ github.token }}",
            },
        },
        {
            "name": "Write the comment, or change it",
            "env": {
                "GITHUB_TOKEN": "${{ github.token }}",
                "HEAD_OWNER": "${{ github.event.workflow_run.head_repository.owner.login }}",
                "HEAD_BRANCH": "${{ github.event.workflow_run.head_branch }}",
            },
            "run": 'mainspring report "$RUNNER_TEMP/verdicts" --head "$HEAD_OWNER:$HEAD_BRANCH"',
        },
    ]
    trigger = Said(
        {"workflows": [_NAME], "types": ["completed"]},
        "zizmor: ignore[dangerous-triggers] runs the main branch's code; what it reads is data",
    )
    job = _job(
        found,
        15,
        steps,
        **{"if": "${{ github.event.workflow_run.event == 'pull_request' }}"},
        permissions={"contents": "read", "actions": "read", "pull-requests": "write"},
    )
    return {
        "name": "mainspring report",
        "on": {"workflow_run": trigger},
        "permissions": {},
        "concurrency": {"group": "mainspring-report-${{ github.event.workflow_run.head_branch }}"},
        **_environment(found),
        "jobs": {"report": job},
    }
