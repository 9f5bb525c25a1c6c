"""The few HTTP calls that the router makes on its own behalf.

Every call has a timeout and turns foreign errors into EngineError: an engine
that does not answer is a fact about the engine, never an exception to handle
elsewhere.
"""

from typing import Any

import aiohttp
import msgspec

from lodestar_router.core.types import EngineSpec
from lodestar_router.errors import EngineError, EngineTimeoutError

_NO_ENDPOINT = frozenset({404, 405, 501})


class NoEndpointError(EngineError):
    """The engine answered that it has no such endpoint."""


class EngineApi:
    """One engine's endpoints."""

    def __init__(
        self, spec: EngineSpec, session: aiohttp.ClientSession, *, key: str | None
    ) -> None:
        self.spec = spec
        self._session = session
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def models(self, timeout_s: float) -> list[dict[str, Any]]:
        """The cards of GET /v1/models.

        Raises:
            NoEndpointError: it has no such list.
            EngineError: no answer, or not a model list.
        """
        answer = await self._json("GET", "/v1/models", timeout_s)
        cards = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(cards, list):
            raise EngineError(f"{self.spec.url}/v1/models is not a model list")
        return [
            card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)
        ]

    async def version(self, timeout_s: float) -> str | None:
        """The engine's version; None if it does not say."""
        try:
            answer = await self._json("GET", "/version", timeout_s)
        except EngineError:
            return None
        version = answer.get("version") if isinstance(answer, dict) else None
        return version if isinstance(version, str) else None

    async def is_sleeping(self, timeout_s: float) -> bool | None:
        """Whether the engine's weights are off the GPU; None if it has no sleep mode.

        Raises:
            EngineError: no answer.
        """
        try:
            answer = await self._json("GET", "/is_sleeping", timeout_s)
        except NoEndpointError:
            return None
        sleeping = answer.get("is_sleeping") if isinstance(answer, dict) else None
        return sleeping if isinstance(sleeping, bool) else None

    async def kv_event_sources(self, timeout_s: float) -> Any:
        """The JSON of GET /kv_event_sources; None if the engine has no such endpoint."""
        try:
            return await self._json("GET", "/kv_event_sources", timeout_s)
        except EngineError:
            return None

    async def healthy(self, timeout_s: float) -> bool:
        """Ask GET /health, which costs no inference; False if the engine has no such endpoint.

        Raises:
            EngineError: it is not healthy, or did not answer.
        """
        try:
            await self._call("GET", "/health", timeout_s)
        except NoEndpointError:
            return False
        return True

    async def metrics(self, timeout_s: float) -> bytes:
        """The page of GET /metrics.

        Raises:
            NoEndpointError: it has no such page.
            EngineError: no answer.
        """
        return await self._call("GET", "/metrics", timeout_s)

    async def tokenize(self, payload: dict[str, Any], timeout_s: float) -> list[int] | None:
        """Token ids by POST /tokenize; None if the engine cannot or will not."""
        try:
            answer = await self._json("POST", "/tokenize", timeout_s, payload)
        except EngineError:
            return None
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens):
            return tokens
        return None

    async def try_out(
        self, path: str, payload: dict[str, Any] | aiohttp.FormData, timeout_s: float
    ) -> None:
        """Have the engine compute an answer, and throw it away.

        Raises:
            EngineError: it did not.
        """
        await self._call("POST", path, timeout_s, payload)

    async def relay(
        self, method: str, target: str, body: bytes, *, request_id: str, timeout_s: float
    ) -> tuple[int, bytes]:
        """Somebody else's call of a control endpoint, with the router's key: (status, body).

        Raises:
            EngineError: no answer.
        """
        headers = {**self._headers, "X-Request-Id": request_id}
        if body:
            headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method,
                self.spec.url + target,
                data=body or None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as answer:
                return answer.status, await answer.read()
        except TimeoutError as error:
            raise EngineTimeoutError("the engine did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineError("the engine did not answer") from error

    async def _json(
        self, method: str, path: str, timeout_s: float, payload: dict[str, Any] | None = None
    ) -> Any:
        body = await self._call(method, path, timeout_s, payload)
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise EngineError(f"{self.spec.url}{path} is not JSON") from error

    async def _call(
        self,
        method: str,
        path: str,
        timeout_s: float,
        payload: dict[str, Any] | aiohttp.FormData | None = None,
    ) -> bytes:
        url = self.spec.url + path
        form = isinstance(payload, aiohttp.FormData)
        try:
            async with self._session.request(
                method,
                url,
                json=None if form else payload,
                data=payload if form else None,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                body = await answer.read()
                if answer.status in _NO_ENDPOINT:
                    raise NoEndpointError(f"{url} answered {answer.status}")
                if answer.status != 200:
                    raise EngineError(f"{url} answered {answer.status}")
                return body
        except TimeoutError as error:
            raise EngineTimeoutError(f"{url} did not answer in {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineError(f"{url}: {error or type(error).__name__}") from error
