"""The benchmark's table, without the processes: their start takes longer than everything else here."""

from pathlib import Path

import pytest

from sanawm_env.bench_vector import Bench, markdown, report
from world_model.errors import InputError


def test_a_row_for_each_number_of_worlds(model_folder: Path) -> None:
    bench = Bench(model=str(model_folder), worlds=(2, 1), processes=0, rounds=1, steps=1)
    facts = report(bench, "bench")
    assert [row["worlds"] for row in facts["rows"]] == [1, 2]
    assert all(row["vector"] > 0 and row["processes"] is None for row in facts["rows"])
    assert "| 2 | " in markdown(facts)
    assert " | – | – |" in markdown(facts)


@pytest.mark.parametrize("values", [{"worlds": ()}, {"rounds": 0}, {"threads": 0}, {"processes": -1}])
def test_bad_options(values: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))}: expected"):
        Bench(**values)
