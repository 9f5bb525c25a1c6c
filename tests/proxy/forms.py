"""Multipart forms, byte by byte."""

BOUNDARY = "----a-boundary_1"


def part(name: str, content: bytes, *, filename: str | None = None) -> bytes:
    """One part; names as they stand in the head."""
    file = "" if filename is None else f'; filename="{filename}"\r\nContent-Type: audio/wav'
    return f'Content-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content


def form(*parts: bytes) -> bytes:
    """The body of a request."""
    boundary = b"--" + BOUNDARY.encode()
    return b"".join(boundary + b"\r\n" + one + b"\r\n" for one in parts) + boundary + b"--\r\n"


def post_form(path: str, body: bytes, *headers: str) -> bytes:
    """The bytes of a POST."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: router",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
