"""What runs at given times: CronJobs."""

from __future__ import annotations

from mainspring.adapters.kubernetes.objects import REVISION, labels_of, named, object_of, release_name
from mainspring.adapters.kubernetes.pods import app_pod
from mainspring.adapters.kubernetes.settings import KubernetesSettings
from mainspring.ports.cluster import Object
from mainspring.ports.target import Job, Revision, World

__all__ = ["cron_job"]

_NAME_LONGEST = 52
"""A CronJob's name: its Jobs append eleven characters."""
_POLICY = (1, 26)
_ZONE = (1, 27)
_USAGE, _CONFIGURATION = 2, 3
"""Exit statuses after which trying again changes nothing."""


def cron_job(job: Job, revision: Revision, settings: KubernetesSettings, namespace: str, world: World) -> Object:
    """A timetable as a CronJob: never two at once, not without end, and not again when the command is wrong."""
    app = revision.app.name
    component = named("job", job.name)
    container = {"name": "job", "args": list(job.arguments)}
    pod = app_pod(revision, component, release_name(app, revision.id), settings, world, container)
    pod["spec"]["restartPolicy"] = "Never"
    template: Object = {
        "backoffLimit": 2,
        "activeDeadlineSeconds": settings.job_deadline_s,
        "ttlSecondsAfterFinished": 86_400,
        "template": pod,
    }
    if world.version >= _POLICY:
        codes = {"containerName": "job", "operator": "In", "values": [_USAGE, _CONFIGURATION]}
        moved = [{"type": "DisruptionTarget", "status": "True"}]
        template["podFailurePolicy"] = {
            "rules": [{"action": "FailJob", "onExitCodes": codes}, {"action": "Ignore", "onPodConditions": moved}]
        }
    spec: Object = {
        "schedule": job.cron,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 300,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": labels_of(app, component)}, "spec": template},
    }
    if world.version >= _ZONE:
        spec["timeZone"] = "Etc/UTC" if job.zone == "UTC" else job.zone
    name = named(app, job.name, longest=_NAME_LONGEST)
    return object_of(
        "batch/v1", "CronJob", name, namespace, labels_of(app, component) | {REVISION: revision.id}, spec=spec
    )
