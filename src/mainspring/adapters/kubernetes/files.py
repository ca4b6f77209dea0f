"""Objects as files: plain manifests, a Kustomize base, a Helm chart. Serialised, never written as text templates."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mainspring.adapters.kubernetes.objects import PLAN
from mainspring.ports.cluster import Object
from mainspring.ports.target import Release

__all__ = ["chart", "kustomization", "manifests", "spelled"]

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"])
_CHART_VERSION = "0.1.0"
_ABOUT = b"# Written by mainspring build, which writes it again from what is declared.\n"
"""By this a file is known, also where it lies in a project that becomes an image."""
_HOLE = "\x01{}\x01"
"""What stands for an expression of Helm's until the objects are text: no value can hold it."""


class _Dumper(yaml.CSafeDumper):
    """YAML that every reader takes for the same: what could be a number or a word of another version is quoted.

    A revision of 16 digits such as ``12e4567890123456`` is a number to readers of YAML 1.2, and not to PyYAML.
    """

    def ignore_aliases(self, data: object) -> bool:
        """Write what stands in two places twice: anchors are for nobody."""
        return True


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.ScalarNode:
    if "\n" in value and not value.startswith((" ", "\n")) and value.isprintable() is False and "\x01" not in value:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if _block(value) else '"')
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


def _block(value: str) -> bool:
    """Whether a text can stand as lines of its own."""
    return all(line.isprintable() and line == line.rstrip() for line in value.split("\n"))


_Dumper.add_representer(str, _text)


def spelled(items: Sequence[Object]) -> str:
    """Objects as documents of YAML."""
    more = len(items) > 1
    return str(
        yaml.dump_all(items, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=1 << 20, explicit_start=more)
    )


def manifests(items: Sequence[Object]) -> dict[str, bytes]:
    """One file, in the order in which the objects are applied."""
    return _headed({"manifests.yaml": spelled(items).encode()})


def kustomization(items: Sequence[Object], release: Release) -> dict[str, bytes]:
    """A Kustomize base: a file an object, and the image by its digest where an overlay can set another."""
    files = {_file_name(item): spelled([_unhashed(item)]).encode() for item in items}
    name, _, digest = release.image.partition("@")
    base: Object = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
        "images": [{"name": name, "digest": digest}],
    }
    return _headed({"kustomization.yaml": spelled([base]).encode(), **files})


def chart(app: str, items: Sequence[Object], release: Release) -> dict[str, bytes]:
    """A Helm chart whose values are the image, the profile, and the scale.

    Helm's templates are text by nature: the objects are serialised, and only the places of the values, which no value
    of a user can look like, become Helm's expressions.
    """
    values: dict[str, Any] = {"image": release.image, "profile": release.variables.get("MAINSPRING_PROFILE", "")}
    files = {}
    for item in items:
        item = copy.deepcopy(_unhashed(item))
        _hollow(item, release, values)
        text = re.sub(r"\{\{|\}\}", lambda found: f'{{{{ "{found[0]}" }}}}', spelled([item]))
        text = re.sub(r'"\\x01(.*?)\\x01"', lambda found: f"{{{{ .Values.{found[1]} }}}}", text)
        files[f"templates/{_file_name(item)}"] = text.encode()
    about = {
        "apiVersion": "v2",
        "name": app,
        "description": f"{app}, as Mainspring declares it",
        "type": "application",
        "version": _CHART_VERSION,
        "kubeVersion": ">=1.29.0-0",
    }
    head = {"Chart.yaml": spelled([about]).encode(), "values.yaml": spelled([values]).encode()}
    return _headed({**head, **files})


def _headed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: _ABOUT + data for name, data in files.items()}


def _unhashed(item: Object) -> Object:
    """Without the digest of what was planned: values and overlays make something else of it."""
    metadata = item["metadata"]
    labels = {name: value for name, value in metadata["labels"].items() if name != PLAN}
    return {**item, "metadata": {**metadata, "labels": labels}}


def _hollow(item: Object, release: Release, values: dict[str, Any]) -> None:
    """Put holes where values go."""
    for place in _containers(item):
        if place.get("image") == release.image:
            place["image"] = _HOLE.format("image | quote")
    if item["kind"] == "ConfigMap" and "MAINSPRING_PROFILE" in item.get("data", {}):
        item["data"]["MAINSPRING_PROFILE"] = _HOLE.format("profile | quote")
    if item["kind"] == "HorizontalPodAutoscaler":
        component = item["metadata"]["labels"]["mainspring.dev/component"].replace("-", "_")
        spec = item["spec"]
        scale = values.setdefault("replicas", {})
        scale[component] = {"min": spec["minReplicas"], "max": spec["maxReplicas"]}
        spec["minReplicas"] = _HOLE.format(f"replicas.{component}.min | int")
        spec["maxReplicas"] = _HOLE.format(f"replicas.{component}.max | int")


def _containers(value: object) -> list[dict[str, Any]]:
    """Every container below a value."""
    if isinstance(value, Mapping):
        found = [one for key, each in value.items() if key == "containers" for one in each]
        return found + [one for each in value.values() for one in _containers(each)]
    if isinstance(value, list):
        return [one for each in value for one in _containers(each)]
    return []


def _file_name(item: Object) -> str:
    return f"{item['kind'].lower()}-{item['metadata']['name']}.yaml"
