"""The endpoints that serve one request of one model, and are routed by it.

Source   vllm/entrypoints at v0.32.0; production-stack's main_router.py.
"""

from collections.abc import Mapping
from typing import Final

# With a JSON body; what a line of a batch may ask for.
JSON_PATHS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/score",
        "/score",
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/pooling",
        "/classify",
        "/tokenize",
        "/detokenize",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/invocations",
    }
)
# With a multipart form, or with JSON.
FORM_PATHS: Final = frozenset(
    {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits"}
)
# Those whose prompt is known well enough to look for it in KV caches.
PROMPT_PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions"})

METHODS: Final[Mapping[str, bytes]] = {
    **dict.fromkeys(JSON_PATHS | FORM_PATHS, b"POST"),
    "/v1/audio/voices": b"GET",  # its model in the query, or in a body
}
