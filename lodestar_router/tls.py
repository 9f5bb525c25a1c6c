"""The settings about TLS as contexts: one that clients meet, one that engines meet.

Errors   ConfigError: a file is missing, is no certificate, or does not fit its key.
"""

import ssl
from pathlib import Path

from lodestar_router.config import Config
from lodestar_router.errors import ConfigError


def client_tls(config: Config) -> ssl.SSLContext | None:
    """For the listening socket; None if it speaks plain HTTP."""
    if config.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    load_own(context, config.tls_cert, config.tls_key)
    if config.tls_client_ca is not None:
        _load_ca(context, config.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def engine_tls(config: Config) -> ssl.SSLContext:
    """For connections to engines with https:// URLs."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if config.engine_ca is not None:
        _load_ca(context, config.engine_ca)
    if config.engine_cert is not None:
        load_own(context, config.engine_cert, config.engine_key)
    return context


def load_own(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Show this certificate on new connections."""
    try:
        # Without a callback OpenSSL would ask at the terminal for an encrypted key's password.
        context.load_cert_chain(cert, key, password=lambda: "")
    except OSError as error:
        raise ConfigError(f"TLS certificate {cert}: {_why(error)}") from error


def _load_ca(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise ConfigError(f"TLS CA {path}: {_why(error)}") from error


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no certificate with its key in PEM ({error.reason or 'no PEM'})"
    return error.strerror or "cannot be read"
