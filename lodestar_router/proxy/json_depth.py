"""How deeply a JSON text nests, without parsing it.

In       a request's body.
Out      its depth, exact for valid JSON; for anything else some number.
Cost     two counts for a body with few brackets; else 1-2 ns per byte.
"""

import numpy as np

from lodestar_router.errors import RequestError

_STRUCTURE = b'[]{}"'
_NOT_STRUCTURE = bytes(set(range(256)) - set(_STRUCTURE))
_STEPS = bytes.maketrans(b"[{]}", bytes([1, 1, 255, 255]))  # 255: -1


JSON_DEPTH = 200  # tool schemas nest ten or twenty deep
_LONG_BYTES = 4096  # below, arrays take longer than they save
_ALL_BUT_ONE_BIT = np.uint8(0xFF ^ ord("[") ^ ord("{"))


def check_depth(body: bytes, most: int) -> None:
    """Do nothing if the body nests no deeper than `most`.

    Raises:
        RequestError: it does.
    """
    if _openings(body) > most and depth_of(body) > most:
        raise RequestError(f"the request body nests deeper than {most} levels")


def _openings(body: bytes) -> int:
    """How many opening brackets there are, in strings too."""
    if len(body) < _LONG_BYTES:
        return body.count(b"{") + body.count(b"[")
    # "[" and "{" differ in one bit. bytes.count looks at one byte after the other.
    return int(np.count_nonzero((np.frombuffer(body, np.uint8) & _ALL_BUT_ONE_BIT) == ord("[")))


def depth_of(body: bytes) -> int:
    """The most brackets that are open at once, those in strings aside."""
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(unescaped.translate(None, _NOT_STRUCTURE).split(b'"')[::2])
    if not outside:
        return 0
    steps = np.frombuffer(outside.translate(_STEPS), dtype=np.int8)
    return int(np.cumsum(steps, dtype=np.int64).max())
