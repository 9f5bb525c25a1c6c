"""The health checks that the settings ask for."""

from lodestar_router.config import Config
from lodestar_router.config.addresses import engine_id_of, parse_url
from lodestar_router.engines.health_checks import Check


def checks_of(config: Config) -> list[Check]:
    """One per static backend and model, none unless they are asked for."""
    if not config.static_backend_health_checks or config.service_discovery != "static":
        return []
    lists = zip(
        config.static_backends, config.static_models, config.static_model_types, strict=True
    )
    return [
        Check(
            engine_id=engine_id_of(parse_url(url)),
            model=model,
            kind=kind,
            interval_s=config.static_backend_health_check_interval_s,
            timeout_s=config.static_backend_health_check_timeout_s,
        )
        for url, model, kind in lists
    ]
