"""Experiments by name: from a spec to a table that can be recorded, and the paper's figures of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import yaml
from scipy import stats

from lvlmva_lite.cli import one_run
from lvlmva_lite.experiments import (
    group_arms,
    paper_figures,
    recording,
    run_origin,
    sweep_folder,
    sweep_workers,
)
from lvlmva_lite.experiments.import_closure import closure, code_id, code_ids
from lvlmva_lite.experiments.sweep_spec import (
    SpecError,
    experiment_parameters,
    read_spec,
    shipped_specs,
    with_parameters,
)
from lvlmva_lite.experiments.tables import recorded_table
from lvlmva_lite.registry import EXPERIMENTS

ROOT = Path(sweep_folder.__file__).parents[2]
RESULTS = ROOT / "lvlmva_lite" / "experiments" / "results"
OTHERS = """
def squares(seed, power=2, *, data_root=None):
    if seed == 9:
        raise RuntimeError("out of luck")
    return [{"arm": arm, "value": (seed / 3) ** power} for arm in "ab"] if seed != 5 else []

def pictures(seed, *, data_root):
    return [{"arm": "a", "n": len(list(__import__("pathlib").Path(data_root).iterdir()))}]
"""


@pytest.fixture
def others(tmp_path, monkeypatch):
    """Experiments that another, installed package registers."""
    packages = tmp_path / "packages"
    about = packages / "others-1.dist-info"
    about.mkdir(parents=True)
    (packages / "others.py").write_text(OTHERS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1\n")
    points = "".join(f"{name} = others:{name}\n" for name in ("squares", "pictures"))
    (about / "entry_points.txt").write_text(f"[lvlmva_lite.experiments]\n{points}")
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{packages}")
    monkeypatch.chdir(tmp_path)
    run_origin._foreign_code.cache_clear()
    yield packages
    run_origin._foreign_code.cache_clear()
    sys.modules.pop("others", None)


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs without a process each, which takes seconds to start."""

    def run_here(folder, ids, program, tell, **limits):
        for id in ids:
            try:
                folder.carry_out(id, one_run.work)
            except RuntimeError as error:
                folder.fail(id, str(error))
            tell(id, folder.state(id))

    monkeypatch.setattr(sweep_workers, "run_here", run_here)


def test_an_experiment_becomes_a_table_with_its_origin(others, lvlmva, in_this_process):
    (others.parent / "spec.yml").write_text("- experiment: squares\n  seeds: [1, 0, 5]\n")
    answer = lvlmva("sweep", "spec.yml", "--out", "out", "--jobs", 2)
    assert answer.returncode == 0, answer.stderr
    assert lvlmva("collect", "out").returncode == 0
    table = pd.read_csv("out/tables/squares.csv", float_precision="round_trip")
    assert table.to_dict("list") == {
        "seed": [0, 0, 1, 1],
        "arm": [*"abab"],
        "value": [0, 0] + [(1 / 3) ** 2] * 2,
    }
    origin = yaml.safe_load(Path("out/tables/squares.yml").read_text())
    assert origin["command"] == "lvlmva sweep experiment squares -p seed=0,1,5 --out OUT"
    assert {"machine", "date", "commit", "threads", "torch", "code"} <= {*origin}
    assert origin["threads"] == 1
    again = lvlmva("sweep", "spec.yml", "-p", "seed=0,1", "--out", "out")
    assert "2 finished before, 0 to do" in again.stderr
    assert "squares" in Path("out/summary.md").read_text()


@pytest.mark.slow
def test_an_experiment_runs_in_a_process_of_its_own(others, lvlmva):
    answer = lvlmva("sweep", "experiment", "squares", "-p", "seed=1", "--out", "out")
    assert answer.returncode == 0, answer.stderr
    assert "--- " in next(Path("out/runs").glob("*/log.txt")).read_text()
    assert lvlmva("collect", "out").returncode == 0
    assert len(pd.read_csv("out/tables/squares.csv")) == 2


def test_an_experiment_that_lacks_a_seed_is_no_table(others, lvlmva, in_this_process):
    assert lvlmva("sweep", "experiment", "squares", "-p", "seed=0,9", "--out", "out").returncode == 1
    answer = lvlmva("collect", "out")
    assert "squares: 1 of 2 runs; no table yet" in answer.stdout
    assert not Path("out/tables/squares.csv").exists()


@pytest.fixture
def recorded(others, lvlmva, in_this_process, monkeypatch):
    """A table of seeds 0, 1 and 5, recorded where the package's own are looked for."""
    assert lvlmva("sweep", "experiment", "squares", "-p", "seed=0,1,5", "--out", "old").returncode == 0
    assert lvlmva("collect", "old").returncode == 0
    folder = others.parent / "lvlmva/results"
    folder.mkdir(parents=True)
    for file in Path("old/tables").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    files = recording.resources.files
    own = "lvlmva_lite.experiments"
    monkeypatch.setattr(
        recording.resources, "files", lambda name: folder.parent if name == own else files(name)
    )
    return folder


def run_again(lvlmva, *parameters, out="new"):
    """The answer of ``lvlmva collect --again`` about runs of these parameters."""
    words = [word for one in parameters for word in ("-p", one)]
    assert lvlmva("sweep", "experiment", "squares", *words, "--out", out).returncode == 0
    return lvlmva("collect", out, "--again")


def test_a_recorded_table_is_held_against_a_run_of_today(recorded, lvlmva):
    answer = run_again(lvlmva, "seed=1")
    assert (answer.returncode, answer.stdout) == (0, "squares: seeds 1, the largest difference is 0\n")
    origin = yaml.safe_load(Path("new/again/squares.yml").read_text())
    again = origin.pop("again")
    assert origin == yaml.safe_load((recorded / "squares.yml").read_text())
    assert (again["seeds"], again["largest_difference"]) == ("1", 0.0)
    for key in ("date", "commit", "processor", "threads", "torch", "numpy"):
        assert again[key] == origin[key]

    table = pd.read_csv(recorded / "squares.csv", float_precision="round_trip")
    table.assign(value=table["value"] + 0.25 * table["seed"]).to_csv(recorded / "squares.csv", index=False)
    assert lvlmva("collect", "new", "--again").stdout.endswith("the largest difference is 0.25\n")
    table.replace({"arm": {"b": "c"}}).to_csv(recorded / "squares.csv", index=False)
    answer = lvlmva("collect", "new", "--again")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "squares: column arm does not say what it says in the recorded" in answer.stderr
    assert not Path("new/again/squares.yml").exists()  # that of before
    table[table["arm"] == "a"].to_csv(recorded / "squares.csv", index=False)
    told = lvlmva("collect", "new", "--again").stderr
    assert re.search(r"squares: 2 rows of .* where the recorded table has 1", told)


def test_a_run_of_today_leaves_the_tables_beside_it_alone(recorded, lvlmva):
    assert run_again(lvlmva, "seed=0").returncode == 0
    assert lvlmva("collect", "new").returncode == 0
    before = {file.name: file.read_bytes() for file in Path("new/tables").iterdir()}
    assert lvlmva("collect", "new", "--again").returncode == 0
    assert {file.name: file.read_bytes() for file in Path("new/tables").iterdir()} == before
    assert "again" not in yaml.safe_load(before["squares.yml"])
    assert [file.name for file in Path("new/again").iterdir()] == ["squares.yml"]


def test_only_runs_of_the_newest_code_are_held_against_a_table(recorded, others, lvlmva):
    assert run_again(lvlmva, "seed=0,1").returncode == 0
    for file in Path("new/requests").iterdir():
        os.utime(file, (0, 0))
    file = others / "others.py"
    file.write_text(file.read_text().replace("seed / 3", "seed / 3 + 1"))
    run_origin._foreign_code.cache_clear()
    sys.modules.pop("others")
    answer = run_again(lvlmva, "seed=0")
    assert "squares: 2 of 3 runs are of other code" in answer.stdout
    assert "squares: seeds 0, the largest difference is 1\n" in answer.stdout


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (["seed=7"], "seed 7 is not in the table"),
        (["seed=6,0,7"], "seed 6, 7 is not in the table"),
        (["seed=1", "power=3"], "these runs have another power than the recorded table"),
    ],
)
def test_runs_that_the_table_does_not_hold_are_not_compared_with_it(recorded, lvlmva, parameters, told):
    answer = run_again(lvlmva, *parameters)
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", f"lvlmva: squares: {told}\n")
    assert not Path("new/again").exists()


def test_a_seed_that_gave_no_rows_is_in_the_table(recorded, lvlmva):
    assert run_again(lvlmva, "seed=5").stdout == "squares: seeds 5, the largest difference is 0\n"


def test_a_tables_settings_stand_in_its_command_and_are_compared(recorded, lvlmva):
    words = ["seed=0,1", "power=1.0e-05"]
    run_again(lvlmva, *words)
    assert lvlmva("collect", "new").returncode == 0
    origin = Path("new/tables/squares.yml").read_text()
    assert "squares -p seed=0,1 -p power=1.0e-05 --out OUT" in yaml.safe_load(origin)["command"]
    for name in ("squares.csv", "squares.yml"):
        (recorded / name).write_bytes(Path("new/tables", name).read_bytes())
    assert lvlmva("collect", "new", "--again").returncode == 0
    assert "another power" in run_again(lvlmva, "seed=0", out="newer").stderr


def test_one_experiment_that_cannot_be_held_stops_no_other(recorded, lvlmva):
    Path("images").mkdir()
    words = ["sweep", "experiment", "pictures", "-p", "seed=0", "-p", "data_root=images", "--out", "new"]
    assert lvlmva(*words).returncode == 0
    answer = run_again(lvlmva, "seed=1")
    assert (answer.returncode, answer.stdout) == (1, "squares: seeds 1, the largest difference is 0\n")
    assert answer.stderr == "lvlmva: pictures: no table is recorded\n"
    (recorded / "pictures.csv").write_text("seed,arm,n\n0,a,0\n")
    told = "lvlmva: pictures: the recorded table has no pictures.yml beside it; record it anew\n"
    assert lvlmva("collect", "new", "--again").stderr == told
    assert Path("new/again/squares.yml").exists()


def test_there_must_be_something_to_hold_against_a_table(others, lvlmva, in_this_process):
    assert lvlmva("sweep", "experiment", "squares", "-p", "seed=9", "--out", "new").returncode == 1
    answer = lvlmva("collect", "new", "--again")
    assert (answer.returncode, answer.stderr) == (1, "lvlmva: squares: none of 1 runs is finished\n")
    sweep_folder.SweepFolder(Path("empty"))
    answer = lvlmva("collect", "empty", "--again")
    assert (answer.returncode, answer.stderr) == (1, "lvlmva: empty holds no run of an experiment\n")
    answer = lvlmva("collect", "new", "--again", "--older")
    assert answer.returncode == 2
    assert "give --older or --again, not both" in answer.stderr


def test_a_table_is_of_one_code_that_of_the_newest_request(others, lvlmva, in_this_process):
    words = ["sweep", "experiment", "squares", "--out", "out", "-p"]
    assert lvlmva(*words, "seed=0,1").returncode == 0
    for file in Path("out/requests").iterdir():
        os.utime(file, (0, 0))
    file = others / "others.py"
    file.write_text(file.read_text() + "\n# other code\n")
    run_origin._foreign_code.cache_clear()
    assert lvlmva(*words, "seed=0,1,2").returncode == 0
    answer = lvlmva("collect", "out")
    assert "squares: 2 of 5 runs are of other code, data or libraries" in answer.stdout
    assert pd.read_csv("out/tables/squares.csv")["seed"].tolist() == [0, 0, 1, 1, 2, 2]
    assert ";" not in yaml.safe_load(Path("out/tables/squares.yml").read_text())["code"]


def test_two_values_of_a_parameter_are_no_single_table(others, lvlmva, in_this_process):
    words = ["sweep", "experiment", "squares", "-p", "seed=0,1", "-p", "power=1,2", "--out", "out"]
    assert lvlmva(*words).returncode == 0
    answer = lvlmva("collect", "out")
    assert "squares: runs with different power; no table" in answer.stdout
    assert not Path("out/tables/squares.csv").exists()


@pytest.mark.parametrize("order", [("power=3", None), (None, "power=3")])
def test_a_parameter_that_only_some_requests_give_is_told_too(others, lvlmva, in_this_process, order):
    for seed, more in enumerate(order):
        given = ["-p", more] if more else []
        words = ["sweep", "experiment", "squares", "-p", f"seed={seed}", *given, "--out", "out"]
        assert lvlmva(*words).returncode == 0
    assert "squares: runs with different power; no table" in lvlmva("collect", "out").stdout


def test_the_images_folder_is_counted_and_not_told(others, lvlmva, in_this_process):
    Path("images").mkdir()
    Path("images/a.png").write_bytes(b"1")
    words = ["sweep", "experiment", "pictures", "-p", "seed=0", "-p", "data_root=images", "--out", "out"]
    assert lvlmva(*words).returncode == 0
    Path("images/b.png").write_bytes(b"2")
    assert "0 finished before, 1 to do" in lvlmva(*words).stderr
    assert lvlmva("collect", "out").returncode == 0
    assert pd.read_csv("out/tables/pictures.csv")["n"].tolist() == [2]
    assert "data_root=DIR" in Path("out/tables/pictures.yml").read_text()
    assert "images" not in Path("out/tables/pictures.yml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment", "squares", "-p", "power=2"], "needs seed"),
        (["experiment", "squares", "-p", "seed=0,-1"], "whole number of at least 0, got -1"),
        (["experiment", "squares", "-p", "seed=0", "-p", "sead=1"], "no parameter 'sead'; it takes: seed, power"),
        (["experiment", "pictures", "-p", "seed=0"], "needs data_root: -p data_root=..., the folder of the images"),
        (["experiment", "pictures", "-p", "seed=0", "-p", "data_root=none"], "must be a folder, got 'none'"),
        (["experiment", "cubes", "-p", "seed=0"], "unknown experiment 'cubes'; choose one of:"),
        (["E2-real"], "knee_real needs data_root"),
        (["E2-paper", "-p", "sead=1"], "no entry of the spec takes -p sead"),
        (["E9-paper"], "no spec 'E9-paper'; give a file, or one of: E1-paper"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_in_a_line(others, lvlmva, words, message):
    answer = lvlmva("sweep", *words, "--out", "out")
    assert answer.returncode == 2
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not Path("out").exists()


def test_a_given_value_goes_to_all_entries_that_take_it(tmp_path):
    entries = with_parameters(read_spec(Path("E2-paper")), {"seed": [3]})
    assert [[*entry.runs()] for entry in entries] == [[{"seed": 3}]] * len(entries)
    with pytest.raises(SpecError, match="takes -p n_align"):
        with_parameters(entries, {"n_align": [3]})


# What comes with the package


@pytest.mark.parametrize("name", shipped_specs())
def test_every_run_of_a_spec_that_comes_with_the_package_could_start(name, lvlmva, tmp_path):
    real = ["-p", f"data_root={tmp_path}"] if name.endswith(("-real", "-knee", "-skin")) else []
    answer = lvlmva("sweep", name, *real, "--dry-run")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert len(lines) == sum(len([*entry.runs()]) for entry in read_spec(Path(name)))
    assert len({line.split()[0] for line in lines}) == len(lines)


def test_there_is_a_quick_and_a_whole_spec_of_each_experiment_of_the_paper():
    for number in range(1, 8):
        assert {f"E{number}-quick", f"E{number}-paper"} <= {*shipped_specs()}
    for name in shipped_specs():
        seeds = {n["seed"] for entry in read_spec(Path(name)) for n in entry.runs()}
        assert (len(seeds) == 1) == name.endswith(("-quick", "-knee", "-skin")), name


TITLES = {
    "Figure 6": r"Figure 6",
    "Figures 9 and 10": r"Figures 9 and 10",
    "Table 1": r"Tables? 1",
    "Table 2": r"Table 2|Tables 1 and 2",
}
"""Of a figure or table of the paper, as the first line of a spec promises it."""


@pytest.mark.parametrize("name", shipped_specs())
def test_what_a_spec_promises_of_the_paper_is_drawn_of_what_it_runs(name):
    entries = read_spec(Path(name))
    asked = [entry.what for entry in entries if entry.kind == "experiment"]
    tables = {one: recorded_table(one)[0] for one in asked if (RESULTS / f"{one}.csv").exists()}
    _, words = paper_figures.of_tables(tables)
    compared = {
        {"lambda": "penalty_weight"}.get(parameter, parameter)
        for entry in entries
        if entry.kind == "run"
        for parameter, values in entry.grid.items()
        if len(values) > 1
    }
    promise = shipped_specs()[name].read_text().splitlines()[0]
    for title, pattern in TITLES.items():
        if re.search(pattern, promise):
            drawn = f"## {title} of the paper" in words or compared & {*paper_figures._COMPARED[title]}
            assert drawn, f"{name} promises {title}"


def test_frozen_features_have_twenty_seeds_and_tuned_networks_seven():
    seeds = {entry.what: len(entry.grid["seed"]) for entry in read_spec(Path("E2-real"))}
    assert (seeds["knee_frozen"], seeds["knee_real"]) == (20, 7)


def test_every_recorded_table_is_an_experiment_of_some_spec():
    recorded = {file.stem for file in RESULTS.glob("*.csv")}
    in_specs = {entry.what for name in shipped_specs() for entry in read_spec(Path(name))}
    assert recorded <= in_specs & {*EXPERIMENTS.names()}


def test_an_experiment_of_images_takes_their_folder():
    assert experiment_parameters("knee_real", {"seed": 0, "data_root": "."}) == {
        "seed": 0,
        "data_root": ".",
    }


# What code a table depends on


def test_all_that_is_imported_at_run_time_is_in_the_closure():
    code = (
        "import sys\nfrom lvlmva_lite.registry import TASKS, METHODS, SEGMENTERS\n"
        "import lvlmva_lite.experiments.group_arms\n"
        "[one.names() for one in (TASKS, METHODS, SEGMENTERS)]\n"
        "print(*[name for name in sys.modules if name.partition('.')[0] == 'lvlmva_lite'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found = closure("lvlmva_lite.experiments.group_arms")
    assert {*done.stdout.split()} <= {*found}
    assert not [name for name in found if name.startswith(("lvlmva_lite.cli", "lvlmva_lite.report"))]


def test_the_id_changes_with_code_and_data_that_matter(tmp_path):
    package = tmp_path / "lvlmva_lite"
    files = {
        "__init__.py": "", "a.py": '"""Words."""\nfrom lvlmva_lite.b import one\n',
        "b.py": "def one():\n    from .c import d\n    return d\n", "c/__init__.py": "",
        "c/d.py": "HOMES = ('lvlmva_lite.e',)\n", "c/words.txt": "some", "e.py": "x = 1\n", "f.py": "y = 1\n",
    }  # fmt: skip
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    known = {code_id("lvlmva_lite.a", tmp_path)}
    names = ["", ".a", ".b", ".c", ".c.d", ".e"]
    assert closure("lvlmva_lite.a", tmp_path) == [f"lvlmva_lite{name}" for name in names]

    def is_new(name, text):
        (package / name).write_text(text)
        id = code_id("lvlmva_lite.a", tmp_path)
        fresh = id not in known
        known.add(id)
        return fresh

    assert not is_new("f.py", "y = 2\n"), "imported by nobody"
    assert not is_new("a.py", '"""Other words."""\n# A remark.\nfrom lvlmva_lite.b import (one)\n')
    assert is_new("e.py", "x = 2\n"), "named in a text"
    assert is_new("b.py", "def one():\n    from .c import d\n    return d, 1\n")
    assert is_new("c/words.txt", "other")
    assert is_new("c/more.txt", "more")

    before = code_ids("lvlmva_lite.a", tmp_path)
    assert sorted(before) == ["a", "b", "c", "c.d", "data in c", "e"]
    for name, text, part in [
        ("b.py", "x = 1", "b"),
        ("c/words.txt", "more", "data in c"),
        ("e.py", "x = 3", "e"),
    ]:
        (package / name).write_text(text)
        after = code_ids("lvlmva_lite.a", tmp_path)
        assert [key for key in before if after.get(key) != before[key]][:1] == [part]
        (package / name).write_text("from lvlmva_lite.c import d\n" if name == "b.py" else text)
        before = code_ids("lvlmva_lite.a", tmp_path)


# The paper's figures


def ablations():
    rows = [(0, "before", "before", 0.2, None), (1, "before", "before", 0.4, None)]
    rows += [(0, "critic", "lexicon", 0.5, 0.9), (1, "critic", "lexicon", 0.6, 1.0)]
    rows += [(0, "segmentation", "SLIC", 0.3, 0.9)]
    return pd.DataFrame(rows, columns=["seed", "ablation", "arm", "wga", "verdict_accuracy"])


def test_an_ablation_is_paired_with_its_own_seed():
    table = paper_figures.ablation_table(ablations(), "critic")
    assert table.loc[0, ["critic", "seeds", "verdict accuracy"]].tolist() == ["lexicon", 2, "0.95"]
    # Changes of .3 and .2: mean .25, t(1) = 12.706 times .05.
    assert table.loc[0, "change of WGA"] == "+0.250 [-0.385, +0.885]"
    # Both of two signs alike: 2 of 4 ways are as far out.
    assert table.loc[0, "p"] == "0.5"
    assert paper_figures.ablation_table(ablations(), "segmentation").loc[0, "change of WGA"] == "+0.100"


def test_methods_stand_with_what_they_read_and_an_exact_p():
    rows = [
        (seed, arm, 0.5 + seed / 10 * (arm != "before"), 0.5)
        for seed in (1, 2, 3)
        for arm in ("before", "dfr", "lvlm-va")
    ]
    table = pd.DataFrame(rows, columns=["seed", "arm", "wga", "aga"])
    found = paper_figures._of_methods(group_arms.changes(table, group_arms.LABELS)).set_index("reads")
    assert found.index.tolist() == ["words", "validation groups"]
    assert found["p of WGA"].tolist() == [f"{stats.wilcoxon([1, 2, 3], method='exact').pvalue:.3g}"] * 2


def test_every_figure_is_drawn_of_what_it_needs_alone():
    names = ["decoy_lambda", "knee_phantoms", "skin_real", "knee_ablations"]
    tables = {name: recorded_table(name)[0] for name in names}
    figures, words = paper_figures.of_tables(tables)
    assert {*figures} == {"figure_6.png", "figures_9_10_knee_phantoms.png", "figures_9_10_skin_real.png"}
    assert all(content.startswith(b"\x89PNG") for content in figures.values())
    for name in ("Figure 6", "Figures 9 and 10", "Table 1", "Table 2"):
        assert f"## {name} of the paper" in words
        assert paper_figures.OF_THE_PAPER[name] in words
    assert paper_figures.of_tables({}) == ({}, "")
    assert not plt.get_fignums()


def test_the_lines_of_figure_6_are_means_over_seeds():
    weights, values = [0.0, 2.0, 0.0, 2.0], [0.1, 0.5, 0.3, 0.9]
    rows = [(s, "lvlm_va", w, v) for s, w, v in zip([0, 0, 1, 1], weights, values, strict=True)]
    table = pd.DataFrame([(0, "before", None, 0.2), *rows, *((s, "ground_truth_masks", w, v) for s, _, w, v in rows)],
                         columns=["seed", "arm", "penalty_weight", "accuracy"])  # fmt: skip
    figure = paper_figures.figure_6(table.assign(mu_align=table["accuracy"]))
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [0.0, 2.0]
    assert line.get_ydata().tolist() == pytest.approx([0.2, 0.7])
    plt.close(figure)
