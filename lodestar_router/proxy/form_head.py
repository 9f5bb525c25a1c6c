"""What routing reads from a multipart form, and how a form is made one for another model."""

from msgspec import Struct

from lodestar_router.errors import RequestError
from lodestar_router.proxy.multipart import Part, read_form
from lodestar_router.proxy.request_body import RequestHead

_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})  # as pydantic reads a form's field
# Whisper makes 50 tokens of a second of audio, which is 32 kB of 16-bit PCM at 16 kHz and
# less when compressed.
BYTES_PER_FORM_TOKEN = 640


class FormHead(Struct, frozen=True):
    """A form's head, and where its model stands."""

    head: RequestHead
    model: Part

    def renamed(self, body: bytes, model: str) -> bytes:
        """The form for another model; everything else stays byte for byte."""
        return body[: self.model.start] + model.encode() + body[self.model.stop :]


def read_form_head(content_type: bytes, body: bytes) -> FormHead:
    """Scan the form for what routing needs.

    Raises:
        RequestError: it is no form, or has not exactly one `model`.
    """
    parts = read_form(content_type, body)
    models = [part for part in parts if part.name == "model"]
    if not models:
        raise RequestError("the form has no 'model'")
    if len(models) > 1 or models[0].filename is not None:
        raise RequestError("the form's 'model' must be one field")
    model = models[0].text(body)
    if not model:
        raise RequestError("the form has no 'model'")
    streams = [part for part in parts if part.name == "stream" and part.filename is None]
    stream = any(part.text(body).strip().lower() in _TRUE for part in streams)
    return FormHead(RequestHead(model=model, stream=stream), models[0])
