import numpy as np
import pytest

from lodestar_router.features.schema import NUM_FEATURES
from lodestar_router.trainer.wire import (
    MAX_FRAME_BYTES,
    FrameReader,
    Kind,
    WireError,
    decode_report,
    decode_rows,
    encode_rows,
    frame,
)
from tests.features.models import row


def test_rows_survive_the_wire() -> None:
    features = np.random.default_rng(0).normal(0, 9, NUM_FEATURES).astype(np.float32)
    sent = [row(features, ttft_s=0.125, gpu="V100"), row(censored=True)]

    received = decode_rows(encode_rows(sent))

    assert (received[0].features == features).all()
    assert received[0].features.flags.writeable
    assert (received[0].ttft_s, received[0].gpu) == (0.125, "V100")
    assert [each.censored for each in received] == [False, True]
    assert received[1].model_version is None


def test_a_row_is_small() -> None:
    assert len(encode_rows([row()] * 100)) < 100 * 200


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_frames_are_whole_however_the_bytes_arrive(size: int) -> None:
    data = frame(Kind.ROWS, b"abc" * 50) + frame(Kind.STOP) + frame(Kind.MODEL, b"\0")
    reader = FrameReader()
    received: list[tuple[Kind, bytes]] = []

    for start in range(0, len(data), size):
        received += reader.feed(data[start : start + size])

    assert received == [(Kind.ROWS, b"abc" * 50), (Kind.STOP, b""), (Kind.MODEL, b"\0")]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"hello, world", id="text"),
        pytest.param(b"\0\0\0\0\x01", id="no-length"),
        pytest.param(b"\x01\0\0\0\x09", id="unknown-kind"),
        pytest.param((MAX_FRAME_BYTES + 1).to_bytes(4, "little") + b"\x01", id="too-long"),
    ],
)
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="not a frame"):
        list(FrameReader().feed(data))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x91\x01", b"\x90\x90"], ids=repr)
def test_malformed_rows_are_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match="malformed rows"):
        decode_rows(payload)


def test_a_malformed_report_is_refused() -> None:
    with pytest.raises(WireError, match="malformed report"):
        decode_report(b"\x01")
