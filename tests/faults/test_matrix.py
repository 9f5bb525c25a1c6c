"""Every row of the fault matrix: nothing stuck, nothing leaked, no more lost than it may cost."""

import pytest

from tests.faults.__main__ import excess, table
from tests.faults.catalog import FAULTS
from tests.faults.observe import Fault, observe


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if not fault.waits], ids=lambda fault: fault.name
)
async def test_fault_costs_no_more_than_it_may(fault: Fault) -> None:
    seen = await observe(fault)

    assert excess(fault, seen) == []
    assert seen.streams.total() == seen.wholes.total() == fault.requests
    assert table([(fault, seen)]).count("\n") == 2
