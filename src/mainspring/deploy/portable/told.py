"""What Kubeflow is told of a step's result: the digest and the key, in the file that its executors leave."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mainspring.deploy.portable.step import RESULT, Stepped
from mainspring.errors import UsageError

__all__ = ["executor_of", "tell"]


class _Artifact(msgspec.Struct, omit_defaults=True):
    name: str = ""
    uri: str = ""
    metadata: dict[str, object] = {}


class _Artifacts(msgspec.Struct):
    artifacts: list[_Artifact] = []


class _Outputs(msgspec.Struct, rename="camel"):
    output_file: str = ""
    artifacts: dict[str, _Artifacts] = {}


class Executor(msgspec.Struct):
    """Of Kubeflow's ExecutorInput, what concerns outputs."""

    outputs: _Outputs = msgspec.field(default_factory=_Outputs)


def executor_of(text: str) -> Executor:
    """Kubeflow's ExecutorInput, as its launcher puts it on the command line.

    Raises:
        UsageError: MS-2780, it is something else.
    """
    try:
        return msgspec.json.decode(text, type=Executor)
    except msgspec.MsgspecError as error:
        raise UsageError(
            "--executor-input is not what Kubeflow's launcher writes",
            code="MS-2780",
            why=str(error),
            fix="leave it out where there is no Kubeflow",
        ) from error


def tell(executor: Executor, done: Stepped) -> None:
    """Write the executor's output file, if there is one to write."""
    given = executor.outputs.artifacts.get(RESULT)
    if not executor.outputs.output_file or given is None:
        return
    known = {"digest": done.digest, "kind": done.kind, "step": done.step, "key": done.key}
    for artifact in given.artifacts:
        artifact.metadata = {**artifact.metadata, **known}
    path = Path(executor.outputs.output_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode({"artifacts": {RESULT: given}}))
