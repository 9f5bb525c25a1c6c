"""One label of the nodes that pods run on, each node asked once.

In       node names, as pods name them.
Out      the label's value once it is known; `changed` is called then.
Errors   none: a node that cannot be asked is asked again, now and then; said once.
"""

import asyncio
import logging
from collections.abc import Callable

from lodestar_router.discovery.kubernetes_api import ApiError, KubernetesApi
from lodestar_router.tasks import cancel, spawn

_logger = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_AGAIN_AFTER_S = 30.0


class NodeLabels:
    """Values of `label`, by node."""

    def __init__(self, api: KubernetesApi, label: str) -> None:
        self._api = api
        self._label = label
        self._values: dict[str, str] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._warned = False
        self.changed: Callable[[], None] = lambda: None

    def value(self, node: str) -> str:
        """The label's value, "" while it is not known."""
        if node and node not in self._values and node not in self._asking:
            self._asking[node] = spawn(self._ask(node), name=f"labels of node {node}")
        return self._values.get(node, "")

    async def _ask(self, node: str) -> None:
        while True:
            try:
                labels = await self._api.node_labels(node, timeout_s=_TIMEOUT_S)
                break
            except ApiError as error:
                if not self._warned:
                    self._warned = True
                    _logger.warning("GPU kinds of nodes: %s", error)
                await asyncio.sleep(_AGAIN_AFTER_S)
        value = labels.get(self._label)
        self._values[node] = value if isinstance(value, str) else ""
        del self._asking[node]
        self.changed()

    async def stop(self) -> None:
        """End all questions."""
        await cancel(*self._asking.values())
