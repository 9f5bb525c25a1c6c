"""What the router itself learned within minutes, as bytes: for the router after a restart.

    corrections    each engine's recent error (features/residual_tracker.py), fading while
                   the router was away as it would have otherwise
    long_ttft      what few TTFTs are above (policy/objective.py)
    lately         what was sent lately (policy/congestion.py): what comes will be alike
    decode_rates   how fast each GPU kind decodes (features/decode_fit.py)

In       the objects that know it; the wall clock, since another process goes on.
Out      bytes for the trainer to keep: the router writes no file.
Cost     0.2 ms for 64 engines, every few seconds.
Errors   CheckpointError where the bytes are not such a memory; nothing is taken over then.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.learning.checkpoint import CheckpointError, read, seal, unseal
from lodestar_router.policy.lodestar import LodestarPolicy

KIND = "router-1"
_LONGEST_S = 3600.0  # what is older says little of engines
_QUANTILE_NUMBERS = 100  # what a restored quantile weighs


class RouterMemory:
    """Of one learned policy and its tracker."""

    def __init__(
        self,
        tracker: ResidualTracker,
        policy: LodestarPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 - it outlives this process
    ) -> None:
        self._tracker = tracker
        self._policy = policy
        self._clock = clock
        self._wall_clock = wall_clock

    def dump(self) -> bytes:
        """All of it, as of now."""
        now_s = self._clock()
        memory = {
            "at_s": self._wall_clock(),
            "corrections": self._tracker.state(now_s),
            "long_ttft_s": self._policy.long_ttft_s.value,
            "lately": self._policy.congestion.state(now_s),
            "decode_rates": self._policy.decoding.fit.state(),
        }
        return seal(KIND, json.dumps(memory).encode())

    def load(self, path: Path) -> None:
        """Go on from a file, if there is one."""
        if (data := read(path)) is None:
            return
        try:
            self.recall(data)
        except CheckpointError as error:
            raise CheckpointError(f"{path} is not usable: {error}") from error

    def recall(self, data: bytes) -> None:
        """Go on from what another router dumped."""
        body = unseal(KIND, data)
        try:
            memory, now_s = json.loads(body), self._clock()
            passed_s = min(max(self._wall_clock() - memory["at_s"], 0.0), _LONGEST_S)
            self._tracker.restore(memory["corrections"], now_s, passed_s)
            self._policy.congestion.restore(memory.get("lately", {}), now_s)  # older: none
            self._policy.decoding.fit.restore(memory["decode_rates"])
            if memory["long_ttft_s"] is not None:
                self._policy.long_ttft_s.restore(memory["long_ttft_s"], _QUANTILE_NUMBERS)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"malformed memory: {error!r}") from error
