"""Where a platform asks the container that it runs: variables of Vertex AI, SageMaker and Azure ML."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["asked_at", "is_azureml"]

_EVERYWHERE = "0.0.0.0"
_AZURE_PORT = "5001"


def is_azureml(environment: Mapping[str, str]) -> bool:
    """Whether the process runs as a container of Azure ML's."""
    return "AZUREML_ENTRY_SCRIPT" in environment or "AZUREML_MODEL_DIR" in environment


def asked_at(environment: Mapping[str, str]) -> tuple[str, str, str] | None:
    """The host and port that the platform asks at, and the variable that says so; None when no platform does."""
    for name in ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT"):
        if port := environment.get(name):
            return _EVERYWHERE, port, name
    if is_azureml(environment):
        return _EVERYWHERE, environment.get("SERVER_PORT") or _AZURE_PORT, "SERVER_PORT"
    return None
