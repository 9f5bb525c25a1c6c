"""The greedy choice of a router that knows everything: the lowest true TTFT.

In       the engines themselves, the prompt, and what is on its way to them.
Out      Decision; a cost is the seconds to the request's first token on that engine,
         or a lower bound of them that is above the lowest cost.
Cost     about 0.1 ms per candidate below saturation, milliseconds for an engine with
         a queue of half a minute; candidates that cannot win any more are cut short.
Errors   RuntimeError when it chooses before it is attached.

A bound of what any prediction of TTFT can do for the request at hand, not of what
routing can do: it takes the best for each request and nothing for those to come.
Foreseen is what will happen on an engine if nothing else is sent there. As engines
serve in order of arrival, later requests can only lengthen the step that computes
the end of the prompt, by sharing it.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from random import Random
from typing import ClassVar

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.types import Candidate, Decision, EngineId, RoutedRequest
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.policy.by_cost import decide_by_cost
from perf.routing.policies.queue_forecast import Arrival, QueueForecast
from perf.routing.policies.simulation import Simulation


class GreedyOracle:
    """Choose the engine that would send the first token soonest; ties random."""

    name: ClassVar[str] = "greedy_oracle"
    reads_prompt: ClassVar[bool] = True

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._simulation: Simulation | None = None
        self._sent: defaultdict[EngineId, deque[tuple[str, Arrival]]] = defaultdict(deque)

    def attach(self, simulation: Simulation) -> None:
        """Look into the engines of `simulation` from now on."""
        self._simulation = simulation

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        if self._simulation is None:
            raise RuntimeError("greedy_oracle is not attached to a simulation")
        simulation = self._simulation
        prompt = simulation.prompt(request.request_id)
        models = [simulation.engine_model(c.engine.engine_id) for c in candidates]
        arrivals = _arrivals(prompt, models, simulation.now_s + simulation.transit_s)
        costs, lowest = [inf] * len(candidates), inf
        # Shortest queues first, so that the others are cut short soon.
        for index in sorted(range(len(candidates)), key=lambda i: models[i].num_waiting_reqs):
            engine_id = candidates[index].engine.engine_id
            costs[index] = self._ttft_s(simulation, engine_id, arrivals[index], lowest)
            lowest = min(lowest, costs[index])
        decision = decide_by_cost(self.name, candidates, costs, self._rng)
        self._sent[decision.engine_id].append((request.request_id, arrivals[decision.chosen]))
        return decision

    def _ttft_s(
        self,
        simulation: Simulation,
        engine_id: EngineId,
        arrival: Arrival,
        give_up_after_s: float,
    ) -> float:
        now_s = simulation.now_s
        start_s = simulation.step_ends_s(engine_id)
        forecast = QueueForecast(
            simulation.engine_model(engine_id),
            [*self._under_way(simulation, engine_id), arrival],
            now_s if start_s is None else start_s,
        )
        return forecast.first_token_at_s(now_s + give_up_after_s) - now_s

    def _under_way(self, simulation: Simulation, engine_id: EngineId) -> list[Arrival]:
        """Earlier requests that reach the engine before this one."""
        sent = self._sent[engine_id]
        while sent and sent[0][1].at_s <= simulation.now_s:
            sent.popleft()
        if not sent:
            return []
        lengths = {r.request_id: r.max_tokens for r in simulation.on_their_way(engine_id)}
        return [
            replace(arrival, max_tokens=lengths.get(request_id, arrival.max_tokens))
            for request_id, arrival in sent
        ]


def _arrivals(prompt: Prompt, models: Sequence[EngineModel], at_s: float) -> list[Arrival]:
    """The request as each engine would receive it; equal ones are one object."""
    made: dict[int, Arrival] = {}
    sizes = [m.config.block_size_tokens if m.config.prefix_caching else 0 for m in models]
    for size in set(sizes):
        keys = prompt.keys(size)[0] if size else ()
        # Its own first token does not depend on how long its answer gets.
        made[size] = Arrival(at_s=at_s, prompt_tokens=prompt.tokens, max_tokens=1, keys=keys)
    return [made[size] for size in sizes]
