"""What was read of a body comes back for the same bytes alone, and takes bounded memory."""

from lodestar_router.proxy.seen_bodies import SEEN_ONCE, SeenBodies, key_of

BODY = b'{"model": "m"}'


def seen_twice(bodies: SeenBodies[str], body: bytes, read: str, *, path: str = "/a") -> None:
    for _ in range(2):
        bodies.note(key_of(path, body), body, read)


def test_a_body_is_remembered_from_its_second_time_on() -> None:
    bodies: SeenBodies[str] = SeenBodies(10_000)
    key = key_of("/a", BODY)

    bodies.note(key, BODY, "once")
    assert bodies.find(key, BODY) is None
    bodies.note(key, BODY, "twice")

    assert bodies.find(key, BODY) == "twice"


def test_the_same_body_on_another_path_is_another() -> None:
    bodies: SeenBodies[str] = SeenBodies(10_000)
    seen_twice(bodies, BODY, "of a")

    assert bodies.find(key_of("/b", BODY), BODY) is None


def test_another_body_of_the_same_digest_is_another() -> None:
    bodies: SeenBodies[str] = SeenBodies(10_000)
    seen_twice(bodies, BODY, "of this")

    assert bodies.find(key_of("/a", BODY), BODY + b" ") is None


def test_the_least_used_are_forgotten_when_memory_is_full() -> None:
    bodies: SeenBodies[int] = SeenBodies(10_000)
    texts = [b"%d" % number * 1000 for number in range(6)]  # each about 2 kB with its entry
    for number, text in enumerate(texts):
        for _ in range(2):
            bodies.note(key_of("", text), text, number)
        bodies.find(key_of("", texts[0]), texts[0])

    kept = [bodies.find(key_of("", text), text) for text in texts]

    assert kept == [0, None, None, 3, 4, 5]


def test_a_body_larger_than_all_memory_is_not_kept() -> None:
    bodies: SeenBodies[str] = SeenBodies(10_000)
    large = b"x" * 20_000

    seen_twice(bodies, large, "large")

    assert bodies.find(key_of("/a", large), large) is None


def test_what_is_read_counts_as_memory() -> None:
    bodies: SeenBodies[str] = SeenBodies(10_000)
    for _ in range(2):
        bodies.note(key_of("", BODY), BODY, "large", more_bytes=20_000)

    assert bodies.find(key_of("", BODY), BODY) is None


def test_bodies_seen_once_are_forgotten() -> None:
    bodies: SeenBodies[str] = SeenBodies(10_000)
    key = key_of("", BODY)
    bodies.note(key, BODY, "first")
    for number in range(SEEN_ONCE):
        bodies.note(key_of("", b"%d" % number), b"%d" % number, "other")

    bodies.note(key, BODY, "again")

    assert bodies.find(key, BODY) is None
