"""The training row: what was scored, and what came of it.

In       a Decision that carries its features, and the Outcome of its request.
Out      TrainingRow, or None if the outcome says nothing about TTFT.

The vector is the chosen candidate's row of Decision.features, copied, never
computed again. Beside it stands what is needed to restate the base under other
rates, because rates are refitted and log_base has to follow.
"""

from msgspec import Struct

from lodestar_router.core.types import Decision, Ending, EngineId, FloatVector, Outcome


class TrainingRow(Struct, frozen=True, kw_only=True, eq=False):
    """One chosen candidate and its label."""

    features: FloatVector  # float32 [features], unscaled, exactly as scored
    work_tokens: int  # uncached tokens ahead of the first token, own and pending
    gpu: str
    engine_id: EngineId  # for reports; never an input
    ttft_s: float  # if `censored`, a lower bound: there was no first token until then
    censored: bool
    model_version: int | None
    predicted_ttft_s: float
    schema_version: int
    row_id: int = 0  # a later row of the same number takes its place: a label that of its bound


def training_row(
    decision: Decision, outcome: Outcome, work_tokens: int, row_id: int = 0
) -> TrainingRow | None:
    """Join a decision with its outcome; `work_tokens` is rates.work_tokens of the chosen one.

    An outcome without a first token gives a bound. None for a policy without features,
    a request that ended on another engine than the one chosen, a rejection, whose speed
    says nothing about prefill, and an end whose first token was not seen.
    """
    if decision.features is None or decision.predicted_ttft_s is None:
        return None
    if decision.schema_version is None or outcome.engine_id != decision.engine_id:
        return None
    if outcome.ttft_s is None and outcome.ending in (Ending.REJECTED, Ending.COMPLETED):
        return None
    chosen = decision.chosen
    return TrainingRow(
        features=decision.features[chosen].copy(),
        work_tokens=work_tokens,
        gpu=decision.candidates[chosen].engine.gpu,
        engine_id=decision.engine_id,
        ttft_s=outcome.waited_s if outcome.ttft_s is None else outcome.ttft_s,
        censored=outcome.ttft_s is None,
        model_version=decision.model_version,
        predicted_ttft_s=float(decision.predicted_ttft_s[chosen]),
        schema_version=decision.schema_version,
        row_id=row_id,
    )
