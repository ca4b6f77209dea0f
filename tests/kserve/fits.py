"""Holds InferenceServices (a JSON list on stdin) against the models that KServe generates from their definition.

Prints for each what it does not know, or what is of another kind, as JSON. Its packages are those of
``requirements.lock`` beside it.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import kubernetes.client.models as core
from kserve.models.v1beta1_inference_service import V1beta1InferenceService

import kserve

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "datetime": str}


def faults(value: Any, kind: str, path: str) -> list[str]:
    """What of a value is not of a kind, as the generated models spell kinds."""
    if (inner := re.fullmatch(r"list\[(.*)\]", kind)) is not None:
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [fault for place, one in enumerate(value) for fault in faults(one, inner[1], f"{path}[{place}]")]
    if (inner := re.fullmatch(r"dict[(\[]str, (.*)[)\]]", kind)) is not None:
        if not isinstance(value, dict):
            return [f"{path} is no map"]
        return [fault for name, one in value.items() for fault in faults(one, inner[1], f"{path}.{name}")]
    if kind in PLAIN:
        return [] if isinstance(value, PLAIN[kind]) else [f"{path} is no {kind}"]
    model = getattr(kserve, kind, None) or getattr(core, kind, None)
    if model is None or not hasattr(model, "openapi_types"):
        return []  # object, IntOrString and the like
    if not isinstance(value, dict):
        return [f"{path} is no {kind}"]
    names = {spelled: name for name, spelled in model.attribute_map.items()}
    found = [f"{path}.{name} is no field of {kind}" for name in value if name not in names]
    for name in value.keys() & names.keys():
        found += faults(value[name], model.openapi_types[names[name]], f"{path}.{name}")
    return found


print(json.dumps([faults(one, V1beta1InferenceService.__name__, "it") for one in json.load(sys.stdin)]))
