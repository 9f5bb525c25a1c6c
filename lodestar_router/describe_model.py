"""The learned policy's model, its trust and its trainer, as gauges of /metrics."""

from collections.abc import Iterator

from lodestar_router.features.serving import PublishedModel
from lodestar_router.features.trust import TrustGate
from lodestar_router.proxy.metrics import GaugeRow
from lodestar_router.steering import Steering
from lodestar_router.trainer.link import TrainerLink


def learned_rows(steering: Steering) -> Iterator[GaugeRow]:
    """All there is of them."""
    trainer, model, trust = steering.trainer, steering.served_model, steering.trust
    if trainer is not None:
        yield from _trainer_rows(trainer)
    if model is not None and trust is not None:
        yield from _model_rows(model, trust)


def _trainer_rows(trainer: TrainerLink) -> Iterator[GaugeRow]:
    """What is known of the trainer process."""
    counters = trainer.counters
    yield "lodestar:trainer_up", "1 if the trainer process runs.", {}, float(trainer.running)
    yield "lodestar:trainer_starts", "Trainer processes started.", {}, counters.starts
    yield "lodestar:trainer_rows", "Training rows offered.", {}, counters.rows_offered
    yield (
        "lodestar:trainer_rows_dropped",
        "Training rows dropped because the trainer was slow or down.",
        {},
        counters.rows_dropped,
    )
    report = trainer.last_report or {}
    yield (
        "lodestar:model_rollbacks",
        "Versions that the running trainer took back for the one before.",
        {},
        report.get("rollbacks", 0),
    )


def _model_rows(model: PublishedModel, trust: TrustGate) -> Iterator[GaugeRow]:
    """The served version, and how far to trust it."""
    yield "lodestar:model_version", "Version of the served model.", {}, model.version
    yield (
        "lodestar:model_trusted",
        "1 if the residual of the served model is used.",
        {},
        float(model.trusted and trust.trusted),
    )
    yield (
        "lodestar:model_trust_losses",
        "Times live errors took trust from a served version.",
        {},
        trust.losses,
    )
    for gpu, live in trust.errors.items():
        for by, error in (("model", live.error), ("base", live.error_base)):
            yield (
                "lodestar:model_live_error",
                "Recent mean |ln(observed / predicted TTFT)| beside its bias, with and without g.",
                {"gpu": gpu, "by": by},
                error,
            )
        yield (
            "lodestar:model_live_coverage",
            "Recent share of TTFTs in the range that the model gives for 90 % of them.",
            {"gpu": gpu},
            live.covered,
        )
