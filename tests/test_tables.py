import pandas as pd
import pytest

from lvlmva_lite.experiments import tables


def squares(seed):
    return [{"arm": "a", "value": seed**2}, {"arm": "b", "value": -seed}]


def test_a_sweep_has_all_rows_of_all_seeds(tmp_path):
    for n_jobs in (1, 2):
        table = tables.sweep(squares, (0, 1, 2), tmp_path / f"{n_jobs}.csv", n_jobs=n_jobs)
        assert table.to_dict("list") == {
            "seed": [0, 0, 1, 1, 2, 2],
            "arm": ["a", "b"] * 3,
            "value": [0, 0, 1, -1, 4, -2],
        }
        assert sorted(pd.read_csv(tmp_path / f"{n_jobs}.csv")["seed"]) == [0, 0, 1, 1, 2, 2]


def test_an_interrupted_sweep_resumes_and_runs_nothing_twice(tmp_path):
    asked = []

    def fails_at_two(seed):
        asked.append(seed)
        if seed == 2 and asked.count(2) == 1:
            raise KeyboardInterrupt
        return squares(seed)

    file = tmp_path / "table.csv"
    with pytest.raises(KeyboardInterrupt):
        tables.sweep(fails_at_two, range(4), file)
    table = tables.sweep(fails_at_two, range(4), file)
    assert asked == [0, 1, 2, 2, 3]
    assert table.equals(tables.sweep(squares, range(4)))
    assert len(tables.sweep(fails_at_two, (1,), file)) == 2
    assert sorted(set(pd.read_csv(file)["seed"])) == [0, 1, 2, 3]


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column 'seed'"):
        tables.sweep(squares, (0,), tmp_path / "other.csv")


def test_an_unknown_recorded_table_is_named():
    with pytest.raises(FileNotFoundError, match="'nothing'"):
        tables.recorded_table("nothing")


def test_provenance_says_where_from():
    found = tables.provenance("a command")
    assert found["command"] == "a command"
    assert all(found.values())
    import numpy
    import torch

    assert found["threads"] == 1
    assert found["torch"] == torch.__version__
    assert found["numpy"] == numpy.__version__
    assert {"processor", "cpu_capability", "python", "scipy", "scikit-learn", "captum"} <= set(found)


STATE = {"touched": False}


def finds_state(seed):
    return [{"touched": STATE["touched"]}]


def test_no_process_of_a_sweep_is_forked(monkeypatch):
    # CUDA and OpenMP do not work in a fork of a process that has used them.
    monkeypatch.setitem(STATE, "touched", True)
    assert not tables.sweep(finds_state, (0, 1), n_jobs=2)["touched"].any()
