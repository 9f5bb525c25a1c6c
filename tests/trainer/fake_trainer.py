"""A trainer process without torch, for tests of the link.

Answers every ROWS frame with a model whose version is one more than the last, and a
report of how many rows it was ever sent. Its arguments make it misbehave.
"""

import os
import sys
import time

from lodestar_router.features.model_codec import decode_model, encode_model
from lodestar_router.trainer.wire import FrameReader, Kind, decode_rows, encode_report, frame
from tests.features.models import model


def main(behaviour: str) -> None:
    if behaviour == "dies-at-start":
        sys.exit(3)
    if behaviour == "never-reads":
        time.sleep(60)
    if behaviour == "writes-rubbish":
        os.write(1, b"rubbish" * 10)
    frames, version, rows = FrameReader(), 0, 0
    while data := os.read(0, 1 << 16):
        for kind, payload in frames.feed(data):
            if kind is Kind.MODEL:
                version = decode_model(payload).version
            elif kind is Kind.ROWS:
                rows += len(decode_rows(payload))
                version += 1
                os.write(1, frame(Kind.MODEL, encode_model(model(version=version))))
                os.write(1, frame(Kind.REPORT, encode_report({"rows": rows})))
    if behaviour == "ignores-the-end":
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
