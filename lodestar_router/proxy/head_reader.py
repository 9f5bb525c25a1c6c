"""A request's head, whatever its body is: JSON, a form, or nothing but a query.

Cost     of JSON seen before see `seen_bodies`; else 2 us, and 0.8 us per KB.
Errors   RequestError for a request that cannot be routed.
"""

from urllib.parse import parse_qs

from lodestar_router.errors import RequestError
from lodestar_router.proxy.form_head import BYTES_PER_FORM_TOKEN, FormHead, read_form_head
from lodestar_router.proxy.json_depth import check_depth
from lodestar_router.proxy.messages import Request
from lodestar_router.proxy.multipart import is_form
from lodestar_router.proxy.request_body import RequestHead, read_head, with_model
from lodestar_router.proxy.routed_paths import FORM_PATHS
from lodestar_router.proxy.seen_bodies import SeenBodies, key_of

_MODEL_CHARS = 512
# For requests whose prompt is not tokenized: a guess from the body's size.
_BYTES_PER_TOKEN = 4
REMEMBERED_BYTES = 8 * 1024 * 1024  # two hundred prompts of 8,000 tokens


class HeadReader:
    """Reads the heads of requests whose prompt nobody wants."""

    def __init__(self, json_depth: int) -> None:
        self._json_depth = json_depth
        self._seen: SeenBodies[RequestHead] = SeenBodies(REMEMBERED_BYTES)

    def of(self, request: Request) -> tuple[RequestHead, FormHead | None]:
        """(the head, the form that it was read from).

        Raises:
            RequestError: there is none.
        """
        if request.path in FORM_PATHS:
            content_type = request.header(b"content-type")
            if content_type is not None and is_form(content_type):
                form = read_form_head(content_type, request.body)
                return form.head, form
        if request.method == b"GET" and not request.body:
            return _head_of_query(request.target), None
        return self._of_json(request.body), None

    def _of_json(self, body: bytes) -> RequestHead:
        key = key_of("", body)
        head = self._seen.find(key, body)
        if head is None:
            check_depth(body, self._json_depth)
            head = read_head(body)
            self._seen.note(key, body, head)
        return head


def _head_of_query(target: bytes) -> RequestHead:
    query = parse_qs(target.partition(b"?")[2].decode("latin-1"))
    if "model" not in query:
        raise RequestError("neither the query nor the request body has a 'model'")
    return RequestHead(model=query["model"][0])


def check_model(model: str) -> None:
    """Refuse what is no name, and may not stand in a log."""
    if len(model) > _MODEL_CHARS or not model.isprintable():
        raise RequestError("'model' cannot be the name of a model")


def body_for(request: Request, model: str, form: FormHead | None) -> bytes:
    """The body, for another model."""
    if form is not None:
        return form.renamed(request.body, model)
    return with_model(request.body, model) if request.body else b""


def guessed_tokens(request: Request, form: FormHead | None) -> int:
    """How long the prompt may be."""
    return len(request.body) // (_BYTES_PER_TOKEN if form is None else BYTES_PER_FORM_TOKEN)
