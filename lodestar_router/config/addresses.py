"""Engine URLs and ZMQ endpoints, checked and brought to one form.

In       text from the operator.
Out      scheme://host:port[/prefix], port always given, no trailing slash.
Errors   ValueError: what is wrong, without the text where it may hold a password.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from lodestar_router.core.types import EngineId

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Underscores are no host name by RFC 1123, but container networks use them.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~%!$&'()*+;=:@-]+)*")
_ZMQ_TCP = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


def parse_url(text: str) -> str:
    """An engine's base URL in its one form."""
    if "@" in text:  # first: no other message may repeat a password
        raise ValueError("an engine URL holds no user or password; use --api-key-env")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{text!r} has a malformed host or port") from None
    if parts.scheme not in _DEFAULT_PORTS or "://" not in text:
        raise ValueError(f"{text!r} does not start with http:// or https://")
    if re.search(r"\s", text):  # urlsplit drops tabs and newlines silently
        raise ValueError(f"{text!r} has white space in it")
    if "?" in text or "#" in text:
        raise ValueError(f"{text!r} has a query or fragment; an engine URL has none")
    host, path = _host(parts, text), _path(parts, text)
    if parts.netloc.endswith(":") or port == 0:
        raise ValueError(f"{text!r} has a malformed host or port")
    return f"{parts.scheme}://{host}:{port or _DEFAULT_PORTS[parts.scheme]}{path}"


def engine_id_of(url: str) -> EngineId:
    """host:port[/prefix] of a parsed URL: short enough for headers and log lines."""
    return EngineId(url.partition("://")[2])


def _host(parts: SplitResult, text: str) -> str:
    host = (parts.hostname or "").lower()
    if parts.netloc.startswith("["):
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            address = None
        if address is not None and address.scope_id is None:
            return f"[{address.compressed}]"
        host = ""
    elif re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            host = ""
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{text!r} has no valid host")
    return host


def _path(parts: SplitResult, text: str) -> str:
    path = parts.path.rstrip("/")
    if path.endswith("/v1"):
        raise ValueError(f"{text!r} ends in /v1; name the server, /v1 is added to it")
    if not _PATH.fullmatch(path):
        raise ValueError(f"{text!r} has a malformed path")
    return path


def parse_zmq_endpoint(text: str) -> str:
    """A ZMQ endpoint to connect to; host `*` or 0.0.0.0 stands for the engine's."""
    match = _ZMQ_TCP.fullmatch(text)
    is_tcp = match is not None and 0 < int(match[2]) <= 65_535
    if not is_tcp and not re.fullmatch(r"ipc://\S+", text):
        raise ValueError(f"{text!r} is no ZMQ endpoint (tcp://HOST:PORT or ipc://PATH)")
    return text
