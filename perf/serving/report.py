"""Results as a table for people: ratios against a reference, within each repeat.

TTFT on a shared machine drifts from one minute to the next, so a policy's time is
divided by the reference policy's under the same load, in the same repeat, before
anything is averaged; shown are the geometric mean and the range over repeats.
"""

import math
from collections.abc import Callable, Sequence

from perf.serving.records import LoadResult

_HEADINGS = (
    "policy", "failed", "hit ratio", "mean TTFT ms", "mean TTFT ratio", "P99 TTFT ratio",
    "expected = reported",
)  # fmt: skip


def table(results: Sequence[LoadResult], reference: str) -> str:
    """One block per load; policies in order of first appearance."""
    blocks = []
    for load in dict.fromkeys(result.load for result in results):
        of_load = [result for result in results if result.load == load]
        policies = dict.fromkeys(sorted(r.policy for r in of_load))
        rows = [_row(policy, of_load, reference) for policy in policies]
        blocks.append(f"{load}\n{grid([_HEADINGS, *rows])}")
    return "\n\n".join(blocks)


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def ratios(
    policy: str,
    results: Sequence[LoadResult],
    reference: str,
    value: Callable[[LoadResult], float],
) -> list[float]:
    """Per repeat that both ran in: the policy's value over the reference's."""
    of_reference = {r.repeat: value(r) for r in results if r.policy == reference}
    return [
        value(result) / of_reference[result.repeat]
        for result in results
        if result.policy == policy and of_reference.get(result.repeat)
    ]


def _row(policy: str, results: Sequence[LoadResult], reference: str) -> tuple[str, ...]:
    mine = [result for result in results if result.policy == policy]
    prompt_tokens = sum(result.prompt_tokens for result in mine) or 1
    return (
        policy,
        f"{sum(r.failed for r in mine)}/{sum(r.requests for r in mine)}",
        f"{sum(r.cached_tokens for r in mine) / prompt_tokens:.3f}",
        f"{1000 * sum(r.mean_ttft_s for r in mine) / len(mine):.1f}",
        _spread(ratios(policy, results, reference, lambda r: r.mean_ttft_s)),
        _spread(ratios(policy, results, reference, lambda r: r.p99_ttft_s)),
        _agreement(mine),
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle = math.exp(sum(math.log(value) for value in values) / len(values))
    return f"{middle:.2f} ({min(values):.2f}..{max(values):.2f})"


def _agreement(results: Sequence[LoadResult]) -> str:
    compared = sum(r.expected_compared or 0 for r in results)
    equal = sum(r.expected_equal or 0 for r in results)
    return f"{equal}/{compared}" if compared else "-"
