"""The API server of Kubernetes: credentials, lists, watches.

In       a namespace, a label selector; the resources named in Resource.
Out      objects as plain JSON. The client library's models are not used: building one
         per pod costs a millisecond and gives nothing.
Cost     one request per page or watch. No call lasts longer than its timeout.
Errors   ApiError for whatever keeps an answer from coming, GoneError when the server
         no longer knows the version asked from, ConfigError without credentials.
"""

import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes_asyncio.client import ApiClient, Configuration, CoreV1Api
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from lodestar_router.errors import ConfigError, RouterError

Json = Mapping[str, Any]

_CONNECT_S = 5.0
_PAGE = 500  # objects per list request, as kubectl
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ApiError(RouterError):
    """The API server did not answer, or not with what was asked for."""


class GoneError(ApiError):
    """The version asked from is too old; only a new list helps."""


class Resource(StrEnum):
    """What is listed and watched: all that the router's Role allows (get, list, watch)."""

    PODS = "pods"
    SERVICES = "services"
    ENDPOINTS = "endpoints"


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of one resource, and the version that a watch goes on from."""

    items: list[Any]
    version: str


class KubernetesApi:
    """One namespace as the API server shows it."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self._core = CoreV1Api(client)
        self._namespace = namespace

    @classmethod
    async def connect(cls, namespace: str) -> "KubernetesApi":
        """With the service account of the pod this runs in, else with the kubeconfig.

        Raises:
            ConfigError: there is neither.
        """
        configuration = Configuration()
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException as in_cluster:
            try:
                await load_kube_config(
                    os.environ.get("KUBECONFIG"),
                    client_configuration=configuration,
                    persist_config=False,
                )
            except (ConfigException, OSError, ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"no credentials for Kubernetes: {in_cluster}; kubeconfig: {error}"
                ) from error
        try:
            return cls(ApiClient(configuration), namespace)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ConfigError(f"credentials for Kubernetes: {error}") from error

    async def list(self, resource: Resource, selector: str, *, timeout_s: float) -> Listing:
        """All objects that there are now, the newest state of each.

        Raises:
            ApiError, GoneError: see there.
        """
        items: list[Any] = []
        token = ""
        while True:
            page = await self._page(resource, selector, token, timeout_s)
            metadata = page.get("metadata") or {}
            items.extend(page.get("items") or [])
            token = metadata.get("continue") or ""
            if not token:
                return Listing(items, str(metadata.get("resourceVersion") or ""))

    async def _page(
        self, resource: Resource, selector: str, token: str, timeout_s: float
    ) -> dict[str, Any]:
        options: dict[str, Any] = {"limit": _PAGE}
        if token:
            options["_continue"] = token
        try:
            async with await self._get(resource, selector, timeout_s, options) as answer:
                await _check(answer)
                page = _decoded(await answer.read())
        except _FOREIGN as error:
            raise _translated(error, f"list of {resource}") from error
        if not isinstance(page.get("items", []), list):
            raise ApiError(f"list of {resource}: no list")
        return page

    async def watch(
        self, resource: Resource, selector: str, version: str, *, serve_s: float, limit_s: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Events after `version`, until the server ends the watch.

        Args:
            serve_s: how long the server is asked to go on.
            limit_s: how long it may take in all: a connection that died in silence
                shows in nothing else.

        Raises:
            ApiError, GoneError: see there.
        """
        options = {
            "watch": True,
            "resource_version": version,
            "timeout_seconds": max(round(serve_s), 1),
            "allow_watch_bookmarks": True,
        }
        try:
            async with await self._get(resource, selector, limit_s, options) as answer:
                await _check(answer)
                while line := await answer.content.readline():
                    yield _decoded(line)
        except TimeoutError as error:
            raise ApiError(f"watch of {resource}: still open after {limit_s:g} s") from error
        except _FOREIGN as error:
            raise _translated(error, f"watch of {resource}") from error

    async def node_labels(self, name: str, *, timeout_s: float) -> dict[str, Any]:
        """The labels of a node; needs a right that the chart's Role does not give.

        Raises:
            ApiError: no answer, or not allowed.
        """
        try:
            read: Callable[..., Awaitable[Any]] = self._core.read_node
            async with await read(
                name, _preload_content=False, _request_timeout=_timeout(timeout_s)
            ) as answer:
                await _check(answer)
                node = _decoded(await answer.read())
        except _FOREIGN as error:
            raise _translated(error, f"node {name}") from error
        labels = (node.get("metadata") or {}).get("labels")
        return labels if isinstance(labels, dict) else {}

    async def _get(
        self, resource: Resource, selector: str, timeout_s: float, options: dict[str, Any]
    ) -> aiohttp.ClientResponse:
        # Without `_preload_content` the library hands out aiohttp's own response.
        calls: dict[Resource, Callable[..., Awaitable[Any]]] = {
            Resource.PODS: self._core.list_namespaced_pod,
            Resource.SERVICES: self._core.list_namespaced_service,
            Resource.ENDPOINTS: self._core.list_namespaced_endpoints,
        }
        if selector:
            options["label_selector"] = selector
        answer: aiohttp.ClientResponse = await calls[resource](
            self._namespace,
            _preload_content=False,
            _request_timeout=_timeout(timeout_s),
            **options,
        )
        return answer

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


_FOREIGN = (
    aiohttp.ClientError,
    HttpProcessingError,  # a line longer than any object may be
    ApiException,
    TimeoutError,
    OSError,
    ValueError,
)


def own_namespace() -> str | None:
    """The namespace of the pod this runs in; None outside of Kubernetes."""
    try:
        return _OWN_NAMESPACE.read_text().strip() or None
    except OSError:
        return None


def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, sock_connect=_CONNECT_S)


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status == 200:
        return
    raise error_of(answer.status, _message(await answer.read()))


def error_of(status: Any, message: str) -> ApiError:
    """The error for a Status object or an answer."""
    if status == 410:
        return GoneError(message)
    return ApiError(f"{status} {message}")


def _message(body: bytes) -> str:
    try:
        return str(_decoded(body).get("message") or "")
    except ApiError:
        return body[:200].decode("utf-8", "replace")


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(f"not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise ApiError("no JSON object")
    return decoded


def _translated(error: Exception, what: str) -> ApiError:
    if isinstance(error, TimeoutError):
        return ApiError(f"{what}: no answer in time")
    return ApiError(f"{what}: {error or type(error).__name__}")
