"""What Mainspring has written into a project, told by what it holds: it is made of the app, and no part of it.

A plan that is kept beside the code would move the digest of the next image, and each image the next plan.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_output", "is_output_folder"]

_SPELLED = (".json", ".md", ".yaml", ".yml")
_NAMED = ("Jenkinsfile",)
_HEADS = (
    b"# Written by mainspring",
    b"// Written by `mainspring",
    b'{"made_by":"mainspring ',
    b'{\n  "made_by": "mainspring ',
    b"<!-- mainspring report -->",
)
"""How they begin: objects for a cluster, pipelines for Jenkins, plans, verdicts and reports."""
_TAILS = (b"\nsdkVersion: mainspring\n", b'"sdkVersion": "mainspring"\n}\n')
"""How a pipeline for Kubeflow ends: its keys are sorted."""
_SEEN = 64
_FOLDERS = (("oci-layout", "index.json"), ("artifact.json", "data"))
"""What is in an image's layout, and in a step's result."""


def is_output_folder(folder: Path) -> bool:
    """Whether a folder is an OCI layout or the result of a step."""
    return any(all((folder / name).exists() for name in names) for names in _FOLDERS)


def is_output(path: Path) -> bool:
    """Whether a file is a plan, a verdict, a report, a pipeline, or objects for a cluster.

    What cannot be read is none: whoever packs it says so.
    """
    if not path.name.endswith(_SPELLED) and path.name not in _NAMED:
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(_SEEN)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SEEN))
            return head.startswith(_HEADS) or file.read(_SEEN).endswith(_TAILS)
    except OSError:
        return False
