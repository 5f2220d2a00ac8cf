"""The measurement of JSON's numbers runs, and tells every contender that is installed."""

import pytest

from benchmarks import numbers


@pytest.mark.parametrize("dtype", numbers.DTYPES)
def test_a_table_has_a_row_for_each_contender_that_is_there(dtype):
    lines = numbers.table((2, 3, 2, 1), dtype, rounds=1)
    assert lines[0] == f"{dtype}, shape (2, 3, 2, 1):"
    rows = {line.split("|")[1].strip(): line for line in lines[4:]}
    assert "poolgrad" in rows
    assert rows.keys() <= numbers.CONTENDERS.keys()
    assert rows["poolgrad"].count("(1.00)") == 2
