"""Reading Kubernetes objects: JSON that is well-formed as a rule, and never trusted to be."""

from collections.abc import Mapping
from typing import Any

from lodestar_router.discovery.kubernetes_api import Json
from lodestar_router.discovery.reflector import MalformedObjectError


def mapping(value: Any) -> Json:
    """The mapping, empty where there is none."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Json]:
    """The mappings of a list, empty where there is none."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def texts(value: Any) -> dict[str, str]:
    """A mapping of text to text: labels, annotations, selectors."""
    pairs = mapping(value).items()
    return {key: text for key, text in pairs if isinstance(key, str) and isinstance(text, str)}


def text(value: Any) -> str:
    """The text, "" where there is none."""
    return value if isinstance(value, str) else ""


def text_list(value: Any) -> list[str]:
    """The texts of a list, empty where there is none."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def metadata_of(item: Json) -> Json:
    """The metadata of an object.

    Raises:
        MalformedObjectError: it has no name or uid.
    """
    metadata = mapping(item.get("metadata"))
    if not text(metadata.get("name")) or not text(metadata.get("uid")):
        raise MalformedObjectError("has no name or uid")
    return metadata
