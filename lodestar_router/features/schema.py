"""The model's inputs, in order: name, unit, source, value when missing.

A published model, a training row and a checkpoint carry SCHEMA_VERSION; they
are refused where it differs. It is raised with every change to FEATURES or to
what one of its entries means.

No feature names an engine, so a model carries over to engines never seen. An
engine's recent log residual is not a feature: it corrects the prediction from
outside (see residual_tracker), and a net that saw it would learn it a second time.
"""

from dataclasses import dataclass

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One column of the feature matrix."""

    name: str
    unit: str  # before the logarithm, if `log1p`
    source: str
    log1p: bool = False  # the column holds ln(1 + value)
    default: float = 0.0  # column value when the source is missing


# Columns under ln(1 + x) come first, so that one call transforms them all.
FEATURES: tuple[Feature, ...] = (
    Feature(name="prompt_tokens", unit="tokens", source="request", log1p=True),
    Feature(name="own_uncached_tokens", unit="tokens", source="prefix match", log1p=True),
    Feature(name="cached_prefix_tokens", unit="tokens", source="prefix match", log1p=True),
    Feature(name="inflight_prefill_tokens", unit="tokens", source="router", log1p=True),
    Feature(name="inflight_prefill_requests", unit="requests", source="router", log1p=True),
    Feature(name="inflight_decode_requests", unit="requests", source="router", log1p=True),
    Feature(name="inflight_decode_tokens", unit="tokens", source="router", log1p=True),
    Feature(name="num_running_reqs", unit="requests", source="engine load", log1p=True),
    Feature(name="num_waiting_reqs", unit="requests", source="engine load", log1p=True),
    Feature(name="load_age_s", unit="seconds", source="engine load", log1p=True),
    Feature(name="kv_need_ratio", unit="blocks needed / free", source="both", log1p=True),
    Feature(name="cached_ratio", unit="0..1 of the prompt", source="prefix match"),
    Feature(name="kv_cache_usage_ratio", unit="0..1", source="engine load"),
    Feature(name="load_reported", unit="0 or 1", source="engine load"),
    Feature(name="prefix_exact", unit="0 or 1", source="prefix view"),
    Feature(name="prefix_partial", unit="0 or 1", source="prefix view"),
    Feature(name="prefix_approximate", unit="0 or 1", source="prefix view"),
    Feature(name="tokens_known", unit="0 or 1", source="request"),
    Feature(name="log_left", unit="ln(left / all uncached tokens ahead)", source="router"),
    Feature(name="log_base", unit="ln(seconds)", source="rates of the served model"),
)

NUM_FEATURES = len(FEATURES)
NUM_LOG1P = sum(feature.log1p for feature in FEATURES)
LOG_BASE = NUM_FEATURES - 1  # the one column that depends on the served model's rates
