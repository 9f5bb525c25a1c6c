import numpy as np

from perf.decision.__main__ import PARTS, Scene, run


def test_what_is_measured_is_a_choice_of_the_whole_router() -> None:
    scene = Scene(6, 2048, np.random.default_rng(1))

    decided = [scene.decide(number) for number in range(50)]

    for spent, decision in decided:
        assert len(spent) == len(PARTS)
        assert sum(spent[:-1]) == spent[-1] > 0
        assert len(decision.candidates) == 6
        assert decision.trusted
    hits = [c.cached_prefix_tokens for _, d in decided for c in d.candidates]
    assert 0 < sum(hit > 0 for hit in hits) < len(hits), "some engines know the prefix"
    assert max(hits) == 1024


def test_a_line_of_the_table_has_every_part() -> None:
    lines: list[str] = []

    found = run(2, 512, 20, lines.append)

    assert len(found) == len(PARTS)
    assert all(0 < p50 <= p99 for p50, p99 in found)
    assert lines[0].startswith("| 2 | 512 |")
