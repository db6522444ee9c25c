import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pandas as pd
import pytest

from lvlmva_lite.experiments import scorecard, tables


def squares(seed):
    return [{"arm": "a", "value": seed**2}, {"arm": "b", "value": -seed}]


def test_a_sweep_has_all_rows_of_all_seeds(tmp_path):
    table = tables.sweep(squares, (0, 1, 2), tmp_path / "table.csv")
    assert table.to_dict("list") == {
        "seed": [0, 0, 1, 1, 2, 2],
        "arm": ["a", "b"] * 3,
        "value": [0, 0, 1, -1, 4, -2],
    }
    assert sorted(pd.read_csv(tmp_path / "table.csv")["seed"]) == [0, 0, 1, 1, 2, 2]


def test_an_interrupted_sweep_resumes_and_runs_nothing_twice(tmp_path):
    log = tmp_path / "asked"  # a list would be part of what tells the experiment from others
    log.touch()

    def fails_at_two(seed):
        with log.open("a") as file:
            file.write(f"{seed}\n")
        if seed == 2 and log.read_text().count("2") == 1:
            raise KeyboardInterrupt
        return squares(seed)

    file = tmp_path / "table.csv"
    with pytest.raises(KeyboardInterrupt):
        tables.sweep(fails_at_two, range(4), file)
    table = tables.sweep(fails_at_two, range(4), file)
    assert log.read_text().split() == ["0", "1", "2", "2", "3"]
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


# Rows that are lost, and rows that are another's


def fails_at_zero(seed):
    if seed == 0:
        raise RuntimeError("out of luck")
    return squares(seed)


def dies_at_zero(seed):
    if seed == 0:
        os._exit(9)  # as the system's killer does
    return squares(seed)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("rows_of", [fails_at_zero, dies_at_zero])
def test_a_seed_that_fails_loses_no_other(tmp_path, n_jobs, rows_of):
    if rows_of is dies_at_zero and n_jobs == 1:
        pytest.skip("it would end this very process")
    file = tmp_path / "table.csv"
    with pytest.raises(tables.SweepError, match=r"1 seed\(s\) failed \(0\)") as failed:
        tables.sweep(rows_of, range(5), file, n_jobs=n_jobs)
    assert list(failed.value.failed) == [0]
    assert sorted(set(pd.read_csv(file)["seed"])) == [1, 2, 3, 4]
    assert failed.value.table.equals(tables.sweep(squares, range(1, 5)))


def test_without_a_file_the_rows_of_the_others_are_in_the_error():
    with pytest.raises(tables.SweepError) as failed:
        tables.sweep(fails_at_zero, range(3))
    assert failed.value.table["seed"].tolist() == [1, 1, 2, 2]


def test_rows_of_another_experiment_are_kept_and_not_taken_over(tmp_path, caplog):
    file = tmp_path / "table.csv"
    first = tables.sweep(partial(powers, 2), (0, 1), file)
    second = tables.sweep(partial(powers, 3), (0, 1), file)
    assert first["value"].tolist() == [0, 1]
    assert second["cube"].tolist() == [0, 1]
    assert "value" not in second
    assert "seeds 0, 1 were made by another experiment" in caplog.text
    assert len(pd.read_csv(file)) == 4
    # Both are there still: neither is run again.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_run_seed", lambda *_: pytest.fail("was run again"))
        pd.testing.assert_frame_equal(tables.sweep(partial(powers, 2), (0, 1), file), first)
        pd.testing.assert_frame_equal(tables.sweep(partial(powers, 3), (0, 1), file), second)


def powers(exponent, seed):
    return [{"value" if exponent == 2 else "cube": seed**exponent}]


def test_rows_that_say_not_what_made_them_are_not_taken_over(tmp_path):
    (tmp_path / "old.csv").write_text("seed,arm,value\n0,a,77\n")
    table = tables.sweep(squares, (0,), tmp_path / "old.csv")
    assert table.equals(tables.sweep(squares, (0,)))
    assert "77" in (tmp_path / "old.csv").read_text()


def test_other_code_of_the_same_commit_shares_no_row(tmp_path):
    """Two dirty trees: the file is the same, the code is not."""
    file = tmp_path / "table.csv"
    tables.sweep(squares, (0,), file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "package_fingerprint", lambda: "another tree")
        tables.sweep(squares, (0,), file)
    assert pd.read_csv(file)["made_by"].nunique() == 2


def test_what_an_experiment_reads_is_part_of_it(tmp_path):
    """As in a notebook: a function that reads a setting beside it."""
    for setting in (1.0, 2.0):
        space = {"__name__": "__main__", "setting": setting}
        exec("def rows_of(seed):\n    return [{'value': seed + setting}]", space)
        found = tables.sweep(space["rows_of"], (0,), tmp_path / "table.csv")
        assert found["value"].tolist() == [setting]


def test_numbers_come_back_bit_for_bit(tmp_path):
    rows = [{"value": x} for x in (0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0)]
    again = [tables.sweep(lambda seed: rows, (0,), tmp_path / "t.csv") for _ in range(2)]
    for table in again:
        assert table["value"].tolist() == [row["value"] for row in rows]


def slow_squares(log, seed):
    with open(log, "a") as file:
        file.write(f"{seed}\n")
    time.sleep(0.05)
    return squares(seed)


def _sweep_slowly(file, log, seeds):
    tables.sweep(partial(slow_squares, str(log)), seeds, file)


def test_processes_on_one_file_lose_no_row_and_run_no_seed_twice(tmp_path):
    context = multiprocessing.get_context("fork")
    file, log = tmp_path / "table.csv", tmp_path / "log"
    orders = (range(8), range(7, -1, -1), [4, 5, 6, 7, 0, 1, 2, 3])
    sweeps = [context.Process(target=_sweep_slowly, args=(file, log, order)) for order in orders]
    for process in sweeps:
        process.start()
    for process in sweeps:
        process.join(120)
        assert process.exitcode == 0
    assert sorted(pd.read_csv(file)["seed"]) == sorted(2 * list(range(8)))
    assert sorted(log.read_text().split()) == [str(seed) for seed in range(8)]


def test_a_killed_sweep_resumes_on_another_number_of_threads(tmp_path):
    """SIGKILL in the middle: what is in the file is whole, and only what is missing runs."""
    script = tmp_path / "experiment.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\nfrom lvlmva_lite.experiments.tables import sweep\n"
        "def rows_of(seed):\n"
        "    print(seed, flush=True)\n"
        "    time.sleep(0.3)\n"
        "    return [{'arm': arm, 'value': seed / 3} for arm in range(3)]\n"
        "sweep(rows_of, range(6), Path('table.csv'))\n"
    )
    file = tmp_path / "table.csv"

    def start(threads):
        return subprocess.Popen(
            [sys.executable, script], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )  # fmt: skip

    process = start("1")
    started = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [int(seed) for seed in started] == [0, 1, 2]
    kept = pd.read_csv(file)
    assert kept["seed"].tolist() == [0, 0, 0, 1, 1, 1]
    again = start("2")
    ran, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert ran.split() == ["2", "3", "4", "5"]
    whole = pd.read_csv(file, float_precision="round_trip")
    assert whole["seed"].tolist() == [seed for seed in range(6) for _ in range(3)]
    assert whole["value"].tolist() == [seed / 3 for seed in range(6) for _ in range(3)]


def test_a_recorded_table_says_in_its_origin_whether_its_code_has_changed(monkeypatch):
    monkeypatch.setattr(scorecard, "code_since", lambda name, origin: f"{name} by {'modules' in origin}")
    assert tables.recorded_table("knee_phantoms")[1]["state"] == "code since: knee_phantoms by True"


@pytest.mark.parametrize("name", ["../results/decoy_loop", "/etc/passwd", "decoy_loop.csv"])
def test_a_recorded_table_is_found_by_its_name_alone(name):
    with pytest.raises(FileNotFoundError, match="no recorded table"):
        tables.recorded_table(name)
