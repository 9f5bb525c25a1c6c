"""The `lodestar-emulator` command: one emulated engine, served until told to stop.

Exit codes: 0 after SIGTERM or SIGINT, 2 with one line on stderr for input it cannot
start with.
"""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from math import inf
from typing import Any, NoReturn

import uvloop
import zmq

from lodestar_router.emulator.build import DEFAULT_MODEL, EngineSettings
from lodestar_router.emulator.config import SchedulerKind
from lodestar_router.emulator.profiles import gpu_names, model_names
from lodestar_router.emulator.server import EmulatedServer
from lodestar_router.emulator.server_language import Language
from lodestar_router.emulator.server_settings import KvConnector, KvRole, KvTransfer, ServerSettings
from lodestar_router.errors import ConfigError

_logger = logging.getLogger("lodestar_emulator")


_LAST_PORT = 65_535


class _Parser(argparse.ArgumentParser):
    """argparse that raises where it would print usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(" ".join(message.split()))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    try:
        settings = parse(sys.argv[1:] if argv is None else argv)
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        uvloop.run(_serve(settings))
    except ConfigError as error:
        sys.stderr.write(f"lodestar-emulator: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def parse(argv: Sequence[str]) -> ServerSettings:
    """What the command line asks for.

    Raises:
        ConfigError: it cannot be read.
    """
    given = _parser().parse_args(argv)
    return ServerSettings(
        engine=EngineSettings(
            gpu=given.gpu,
            model=given.model,
            scheduler=SchedulerKind.PREFILL_FIRST if given.prefill_first else None,
            prefix_caching=False if given.no_prefix_caching else given.prefix_caching,
            max_num_batched_tokens=given.max_num_batched_tokens,
            max_num_seqs=given.max_num_seqs,
            max_model_len=given.max_model_len,
            kv_blocks=given.kv_blocks,
            eager=given.eager,
            slowdown=given.slowdown,
            kv_events=not given.no_kv_events,
        ),
        served_model=given.served_model_name,
        tokenizer=given.tokenizer,
        host=given.host,
        port=given.port,
        kv_events_port=given.kv_events_port,
        kv_replay_port=given.kv_replay_port,
        scheduler_stats_port=given.scheduler_stats_port,
        kv_transfer=_kv_transfer(given),
        speed=given.speed,
    )


def _kv_transfer(given: argparse.Namespace) -> KvTransfer | None:
    if given.kv_role is None:
        return None
    return KvTransfer(
        role=KvRole(given.kv_role),
        connector=KvConnector(given.kv_connector),
        strict=given.kv_strict,
        gbytes_per_s=given.kv_gbytes_per_s,
        peers=tuple(given.kv_peer),
    )


def _count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _speed(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be a port, not {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lodestar-emulator",
        description="Serves one emulated vLLM engine: real API, real scheduling, no GPU.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--gpu",
        default="A30",
        help=f"GPU kind: {', '.join(gpu_names())}; step times of the L20 are calibrated, of the "
        "V100-32GB extrapolated, of the others fitted",
    )
    engine.add_argument("--model", default=DEFAULT_MODEL, help=", ".join(model_names()))
    engine.add_argument(
        "--kv-blocks", type=_count, help="KV pool in blocks; else what the GPU holds"
    )
    engine.add_argument("--max-num-seqs", type=_count, help="as vLLM's; else its default there")
    engine.add_argument("--max-num-batched-tokens", type=_count, help="as vLLM's")
    engine.add_argument("--max-model-len", type=_count, help="as vLLM's; else what the pool holds")
    engine.add_argument(
        "--slowdown", type=float, default=1.0, help="every step takes so much longer"
    )
    engine.add_argument("--speed", type=float, default=1.0, help="emulated seconds per second")
    engine.add_argument(
        "--prefill-first", action="store_true", help="the scheduling of vLLM before V1"
    )
    engine.add_argument("--eager", action="store_true", help="without CUDA graphs")
    caching = engine.add_mutually_exclusive_group()
    caching.add_argument(
        "--prefix-caching", action="store_true", default=None, help="even where off by default"
    )
    caching.add_argument("--no-prefix-caching", action="store_true", help="recompute every prompt")
    engine.add_argument("--no-kv-events", action="store_true", help="publish no KV events")
    _add_kv_transfer(parser.add_argument_group("disaggregated prefill"))
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on")
    server.add_argument("--port", type=_port, default=8000, help="HTTP; 0 for a free one")
    for name in ("kv-events", "kv-replay", "scheduler-stats"):
        server.add_argument(f"--{name}-port", type=_port, default=0, help="ZMQ; 0 for a free one")
    server.add_argument("--served-model-name", help="else the name of the model")
    server.add_argument("--tokenizer", help="directory or Hugging Face id; else a built-in one")
    return parser


def _add_kv_transfer(group: Any) -> None:
    group.add_argument("--kv-role", choices=tuple(KvRole), help="what it does of a request")
    group.add_argument(
        "--kv-connector",
        choices=tuple(KvConnector),
        default=KvConnector.NIXL.value,
        help="nixl: requests say where a computed prompt is; shared: every --kv-peer is asked",
    )
    group.add_argument(
        "--kv-peer", metavar="URL", action="append", default=[], help="a prefill engine"
    )
    group.add_argument(
        "--kv-strict", action="store_true", help="refuse requests without part in a handover"
    )
    group.add_argument(
        "--kv-gbytes-per-s", type=_speed, default=12.5, help="how fast prompts are fetched"
    )


async def _serve(settings: ServerSettings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    context: zmq.Context[Any] = zmq.Context()
    language = Language(settings.tokenizer)
    server = EmulatedServer(settings, language, context=context, clock=time.monotonic)
    try:
        await server.start()
        _logger.info(
            "emulated %s with %s on %s, tokenizer %s, ports %s",
            settings.engine.gpu,
            settings.engine.model,
            server.url,
            language.root,
            server.ports,
        )
        await stopping.wait()
    finally:
        await server.stop()
        context.destroy(linger=0)


if __name__ == "__main__":
    sys.exit(main())
