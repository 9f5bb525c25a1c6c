"""The trainer process: `python -m lodestar_router.trainer`, started by TrainerLink.

Frames come on stdin and go to stdout (see wire); logs go to stderr. Niced, because
the router and any engine on this machine come first. The terminal's interrupt is
left to the router, which then closes the pipe.
"""

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy loads; as in cli

from lodestar_router.trainer.serve import ServeOptions, TrainerLoop, claim_stdout


def main() -> None:
    """Run until the router is done."""
    frames_fd = claim_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgrp()  # a signal to the group is the router's, which ends this process in time
    # In the router's session: where Linux groups by session (autogroup), one of its own would have
    # as much of the processor as the router, however nice it is.
    os.nice(10)
    parser = argparse.ArgumentParser(prog="lodestar-router-trainer")
    parser.add_argument("--state-dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interval", type=float, default=ServeOptions().interval_s, help="seconds")
    parser.add_argument("--min-new-rows", type=int, default=ServeOptions().min_new_rows)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s trainer: %(message)s")
    # Imported late: torch takes seconds to load, which should be niced, and may print.
    from lodestar_router.learning.trainer import Trainer

    TrainerLoop(
        sys.stdin.fileno(),
        frames_fd,
        lambda model: Trainer(options.seed, time.monotonic, model),
        ServeOptions(
            interval_s=options.interval,
            min_new_rows=options.min_new_rows,
            state_dir=options.state_dir,
        ),
    ).run()


if __name__ == "__main__":
    main()
    # Checkpoints and frames are written, stderr is unbuffered by line: what is left
    # is a second of taking torch apart, for which the router would have to wait.
    sys.stderr.flush()
    os._exit(0)
