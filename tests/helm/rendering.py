"""Charts rendered with Helm itself, as a library."""

from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

from lodestar_router.config import Config, parse

ROOT = Path(__file__).parents[2]
HELM = ROOT / "helm"
CHART = HELM / "lodestar-router"

Values = dict[str, Any]


class Rendered:
    """The objects that a chart makes of values, by kind and name."""

    def __init__(self, chart: Path, values: Values, *, name: str = "demo") -> None:
        with helm.Chart.load(chart) as loaded:
            loaded.validate_schema(values)
            texts = loaded.render(values, name=name, namespace="models")
        self.objects: list[dict[str, Any]] = [
            document
            for text in texts.values()
            for document in yaml.safe_load_all(text)
            if document is not None
        ]

    def kinds(self) -> list[str]:
        """Of every object, sorted."""
        return sorted(each["kind"] for each in self.objects)

    def one(self, kind: str, name: str = "") -> dict[str, Any]:
        """The only object of a kind whose name contains `name`."""
        found = [
            each
            for each in self.objects
            if each["kind"] == kind and name in each["metadata"]["name"]
        ]
        assert len(found) == 1, [each["metadata"]["name"] for each in found]
        return found[0]


def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    """The pod spec of a Deployment."""
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def values_of(*files: Path) -> Values:
    """Values files merged as Helm does: mappings key by key, all else replaced."""
    values: Values = {}
    for file in files:
        values = merged(values, yaml.safe_load(file.read_text(encoding="utf-8")))
    return values


def merged(below: Values, above: Values) -> Values:
    """Mappings key by key; of all else what is above."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            both[key] = merged(below[key], above[key])
    return both


def parsed(container: dict[str, Any], directories: dict[str, Path]) -> Config:
    """The container's arguments, read by the router's own command line parser.

    Args:
        directories: what stands for the directories of the container's volumes.
    """
    mounted = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
    assert directories.keys() <= mounted
    arguments = []
    for argument in container["args"]:
        for inside, outside in directories.items():
            argument = argument.replace(f"={inside}", f"={outside}")
        arguments.append(argument)
    return parse(arguments, {})


def hardened(spec: dict[str, Any]) -> bool:
    """Whether a pod's only container is one that an admission of level `restricted` takes."""
    (container,) = spec["containers"]
    security = container["securityContext"]
    return bool(
        spec["securityContext"]["runAsNonRoot"]
        and spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        and security["readOnlyRootFilesystem"]
        and not security["allowPrivilegeEscalation"]
        and security["capabilities"] == {"drop": ["ALL"]}
    )


def volumes_match(spec: dict[str, Any]) -> bool:
    """Whether every mount has its volume and every volume its mount."""
    (container,) = spec["containers"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    return mounts == {volume["name"] for volume in spec["volumes"]}
