"""production-stack's lists of static backends, as engines.

    --static-backends http://a:8000,http://b:8000,http://b:8000
    --static-models   llama,llama,sql-adapter
    --static-model-labels prefill,decode,decode

An engine whose URL stands there twice is one engine with two models. Its label becomes
its spec's label `model`, which is where Kubernetes has it: the role in disaggregated
prefill is read from there.

In       lists of equal length.
Out      EngineSpec each, in order.
Errors   ValueError. URLs that the original skips, and then stops, are errors here; host
         names that it does not know (one label, IPv6) are none.
"""

from collections.abc import Mapping, Sequence

from lodestar_router.config.addresses import engine_id_of, parse_url
from lodestar_router.config.converters import shown, text
from lodestar_router.core.roles import ROLE_LABEL
from lodestar_router.core.types import EngineSpec

MODEL_TYPES = (
    "chat", "completion", "embeddings", "rerank", "score", "transcription", "vision", "messages",
)  # fmt: skip
_DEFAULT_LABEL = "default"


def comma_list(raw: object) -> tuple[str, ...]:
    """Texts, with commas between them or in a YAML list."""
    if isinstance(raw, list):
        return tuple(text(item) for item in raw)
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        raise ValueError(f"must be a list with commas, not {shown(raw)}")
    return tuple(part for item in str(raw).split(",") if (part := item.strip()))


def aliases(raw: object) -> dict[str, str]:
    """Alias to model, from ALIAS:MODEL,... or a YAML mapping; a model may have colons in it."""
    if isinstance(raw, Mapping):
        return {text(alias): text(model) for alias, model in raw.items()}
    found: dict[str, str] = {}
    for item in comma_list(raw):
        alias, colon, model = (part.strip() for part in item.partition(":"))
        if not alias or not colon or not model:
            raise ValueError(f"must be ALIAS:MODEL, not {shown(item)}")
        if found.setdefault(alias, model) != model:
            raise ValueError(f"two models for alias {shown(alias)}")
    return found


def static_specs(
    backends: Sequence[str],
    models: Sequence[str],
    labels: Sequence[str],
    types: Sequence[str],
    *,
    checked: bool,
) -> tuple[EngineSpec, ...]:
    """The engines that the lists name.

    Args:
        checked: whether they are to be asked for real answers, which takes models and types.
    """
    for name, values in (("models", models), ("model-labels", labels), ("model-types", types)):
        if values and len(values) != len(backends):
            raise ValueError(
                f"--static-{name} has {len(values)} entries, --static-backends {len(backends)}"
            )
    if checked and not (models and types):
        raise ValueError(
            "--static-backend-health-checks needs --static-models and --static-model-types"
        )
    for kind in types if checked else ():
        if kind not in MODEL_TYPES:
            raise ValueError(
                f"--static-model-types: {shown(kind)} is none of {', '.join(MODEL_TYPES)}"
            )
    specs: dict[str, EngineSpec] = {}
    for number, backend in enumerate(backends):
        url = _url(backend)
        known = specs.get(url)
        served = (*(known.models if known else ()), *models[number : number + 1])
        label = labels[number] if labels else _DEFAULT_LABEL
        specs[url] = EngineSpec(
            engine_id=engine_id_of(url),
            url=url,
            models=tuple(dict.fromkeys(served)),
            labels=known.labels if known else {ROLE_LABEL: label},
        )
    return tuple(specs.values())


def _url(backend: str) -> str:
    try:
        return parse_url(backend)
    except ValueError as error:
        raise ValueError(f"--static-backends: {error}") from error
