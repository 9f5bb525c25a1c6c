"""What the operator asked for: flags, environment and YAML files, checked, as one value.

In       argv, environ, the files that they name.
Out      Config, frozen; built before anything else and never changed.
Errors   ConfigError with one line: where the value stood, what is wrong with it.

The only reader of flags and environment. Cheap to import: no torch, no sockets.

    addresses     engine URLs, ZMQ endpoints
    converters    raw text or YAML to a checked value
    engine_specs  an engine's entry in a file
    static_backends, discovery_settings, dynamic    what production-stack's router takes
    emulated      engines that are started rather than found
    settings      the table of all flags: unit, default, reason
    sources       command line, environment, files: what each of them gives
    parsing       precedence, and the checks across settings
"""

from lodestar_router.config.model import Config
from lodestar_router.config.parsing import parse

__all__ = ["Config", "parse"]
