"""The table of a sweep, and what is said of it, against scipy and a count by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lvlmva_lite.experiments import collect as gathering
from lvlmva_lite.experiments.sweep_folder import Job, SweepFolder

ORIGIN = {"code": "c", "libraries": "l", "data": "d"}


def finished(folder, job, values):
    """Put a finished run there without running it."""
    (id,) = folder.add([replace(job, origin=ORIGIN)])
    folder.out(id).mkdir()
    (folder.out(id) / job.last_file).write_text(json.dumps(values))
    about = {
        "seconds": 2.0,
        "peak_memory": 10,
        "host": "here",
        "finished": 1e5,
        "commit": "abc",
        "processor": "a chip",
    }
    (folder.out(id).parent / "done.json").write_text(json.dumps(about))
    return id


def run_of(seed, **settings):
    return Job(
        "run", "knee", {"seed": seed, **settings}, {"dataset": "knee", "seed": seed, **settings}, "/"
    )


def result_of(method, before, after):
    def score(wga):
        return {"accuracy": 0.9, "wga": wga, "aga": None, "seconds": 1.0}

    scores = {"before": score(before), "after": score(after), "bound": score(1.0)}
    # As Result.summary gives them: the method's scores stand under its own name as well.
    scores |= dict.fromkeys((method, method.replace("-", "_")), score(after))
    return {"method": method, "scores": scores}


@pytest.fixture
def folder(tmp_path):
    return SweepFolder(tmp_path / "sweep")


def cells(text, title):
    """The rows of a Markdown table below its title, as dicts."""
    lines = text.partition(f"## {title}\n\n")[2].partition("\n\n")[0].splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_a_row_for_each_run_and_arm_with_parameters_and_scores(folder):
    id = finished(
        folder, run_of(3, method="lvlm-va", n_align=50, sizes=[1, 2]), result_of("lvlm-va", 0.25, 0.5)
    )
    table = gathering.collect(folder).table
    assert table["arm"].tolist() == ["before", "after", "bound"]
    assert table["wga"].tolist() == [0.25, 0.5, 1.0]
    assert set(table["id"]) == {id}
    assert set(table["n_align"]) == {50}
    assert set(table["sizes"]) == {"[1, 2]"}
    assert set(table["run_seconds"]) == {2.0}
    assert set(table["supervision"]) == {"words"}
    assert table.loc[0, ["commit", "date", "processor"]].tolist() == ["abc", "1970-01-02", "a chip"]
    gathering.write(gathering.collect(folder), folder)
    again = pd.read_csv(folder.path / "runs.csv", float_precision="round_trip")
    assert again["wga"].tolist() == [0.25, 0.5, 1.0]
    assert again["aga"].isna().all()


def test_a_chapters_numbers_are_told_apart_by_arm_and_from_parameters(folder):
    job = Job(
        "chapter", "/x/00_tiny.ipynb", {"seed": 1}, {"seed": 1, "n": 4, "name": "x", "host": "y"}, "/"
    )
    values = {"accuracy_before": 0.5, "accuracy_after": 0.75, "mu_align_after": 0.1, "n": 8, "words": "x"}
    finished(folder, job, values)
    table = gathering.collect(folder).table.set_index("arm")
    assert table.loc[["before", "after"], "accuracy"].tolist() == [0.5, 0.75]
    assert table.loc["after", "mu_align"] == 0.1
    assert table.loc["", "n_recorded"] == 8
    assert table["n"].tolist() == [4, 4, 4]
    assert table.loc["", "words"] == "x"
    assert set(table["name"]) == {"00_tiny"}
    assert set(table["name_parameter"]) == {"x"}
    assert set(table["host"]) == {"here"}


def test_means_intervals_and_tests_are_those_of_scipy(folder):
    before = np.array([0.20, 0.31, 0.24, 0.28, 0.22, 0.27, 0.26])
    gain = {"lvlm-va": np.array([0.1, 0.2, 0.15, 0.12, 0.3, -0.01, 0.21])}
    gain["subg"] = np.array([0.12, 0.1, 0.35, 0.09, 0.31, 0.2, 0.4])
    for method, more in gain.items():
        for seed in range(7):
            values = result_of(method, before[seed], before[seed] + more[seed])
            finished(folder, run_of(seed, method=method, segmenter="ppeps-wgm"), values)
    text = gathering.summary(gathering.collect(folder))

    def interval(values, sign=""):
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        return f"{np.mean(values):{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"

    means = {(row["runs"], row["arm"]): row for row in cells(text, "Means") if row["measure"] == "wga"}
    row = means["method lvlm-va", "after"]
    assert row["mean [95 % interval]"] == interval(before + gain["lvlm-va"])
    assert row["seeds"] == "7"
    changes = {
        row["runs"]: row
        for row in cells(text, "Changes by the method, seed by seed")
        if row["measure"] == "wga"
    }
    for method, more in gain.items():
        row = changes[f"method {method}"]
        assert row["after - before [95 % interval]"] == interval(more, "+")
        p = stats.wilcoxon(more, method="exact").pvalue
        assert float(row["p"].split()[0]) == pytest.approx(p, rel=5e-3)
    assert changes["method lvlm-va"]["paper"].startswith("0.16 ± 0.06")
    assert changes["method subg"]["paper"] == ""
    (row,) = [
        row for row in cells(text, "Methods after alignment, seed by seed") if row["measure"] == "wga"
    ]
    assert row["methods"] == "lvlm-va - subg"
    assert row["difference [95 % interval]"] == interval(gain["lvlm-va"] - gain["subg"], "+")


def test_what_critic_and_judge_took_stands_beside_the_seconds(folder):
    dollars = [0.0123, 0.0321]
    for seed, cost in enumerate(dollars):
        took = {"critic_tokens": 1000 * (seed + 1), "critic_dollars": cost}
        finished(folder, run_of(seed, method="lvlm-va"), result_of("lvlm-va", 0.25, 0.5) | took)
    none = {"critic_tokens": 0, "critic_dollars": 0.0}
    unpriced = {"critic_tokens": 70, "critic_dollars": None}
    finished(folder, run_of(0, method="rrr-gt"), result_of("rrr-gt", 0.25, 0.5) | none)
    finished(folder, run_of(0, method="subg"), result_of("subg", 0.25, 0.5) | unpriced)
    finished(folder, run_of(0, method="dfr"), result_of("dfr", 0.25, 0.5))  # of an older version
    collected = gathering.collect(folder)
    gathering.write(collected, folder)
    table = pd.read_csv(folder.path / "runs.csv").set_index(["method", "seed", "arm"])
    assert table.loc[("rrr-gt", 0, "after"), ["critic_tokens", "critic_dollars"]].tolist() == [0, 0]
    assert table.loc[("subg", 0, "after"), "critic_tokens"] == 70
    assert np.isnan(table.loc[("subg", 0, "after"), "critic_dollars"])
    assert table.loc[("dfr", 0, "after"), ["critic_tokens", "critic_dollars"]].isna().all()
    assert table.xs("before", level="arm")[["critic_tokens", "critic_dollars"]].isna().all(axis=None)
    text = gathering.summary(collected)
    means = {(row["runs"], row["measure"]): row["mean [95 % interval]"] for row in cells(text, "Means")}
    low, high = stats.t.interval(0.95, 1, np.mean(dollars), stats.sem(dollars))
    assert means["method lvlm-va", "critic_dollars"] == f"{np.mean(dollars):.4f} [{low:.4f}, {high:.4f}]"
    assert means["method lvlm-va", "critic_tokens"].startswith("1500 [")
    assert means["method rrr-gt", "critic_tokens"] == "0"
    assert ("method subg", "critic_dollars") not in means
    assert "critic_tokens" not in {
        row["measure"] for row in cells(text, "Changes by the method, seed by seed")
    }


def test_other_settings_are_no_further_seeds_and_one_seed_has_no_interval(folder):
    for n_align in (50, 100):
        finished(
            folder, run_of(0, method="lvlm-va", n_align=n_align), result_of("lvlm-va", 0.25, n_align / 200)
        )
    rows = [
        row
        for row in cells(gathering.summary(gathering.collect(folder)), "Means")
        if (row["arm"], row["measure"]) == ("after", "wga")
    ]
    assert [(row["runs"], row["seeds"]) for row in rows] == [("n_align 50", "1"), ("n_align 100", "1")]
    assert [row["mean [95 % interval]"] for row in rows] == ["0.250", "0.500"]


def test_only_what_is_finished_counts(folder):
    finished(folder, run_of(0, method="lvlm-va"), result_of("lvlm-va", 0.25, 0.5))
    id = finished(folder, run_of(1, method="lvlm-va"), result_of("lvlm-va", 0.25, 0.5))
    (folder.out(id).parent / "done.json").unlink()
    assert gathering.collect(folder).table["seed"].unique().tolist() == [0]


def test_what_older_code_has_left_is_told_and_taken_in_when_asked(folder, lvlmva):
    finished(folder, run_of(0, method="lvlm-va"), result_of("lvlm-va", 0.25, 0.5))
    folder.add([replace(run_of(0, method="lvlm-va"), origin=ORIGIN | {"code": "newer"})])
    told = "beside them 1 finished by older code, data or libraries; --older takes them in"
    answer = lvlmva("collect", folder.path)
    assert told in answer.stderr
    assert "no run has finished yet" in answer.stdout
    answer = lvlmva("collect", folder.path, "--older")
    assert told not in answer.stderr
    assert "# run knee" in answer.stdout


def test_nothing_finished_is_a_table_without_rows(folder):
    folder.add([replace(run_of(0), origin=ORIGIN)])
    collected = gathering.collect(folder)
    assert collected.table.empty
    assert gathering.summary(collected) == "no run has finished yet\n"
    assert gathering.write(collected, folder)[0] == "runs.csv"


def test_the_same_table_as_parquet(folder):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    finished(folder, run_of(0, method="lvlm-va", words=None), result_of("lvlm-va", 0.25, 0.5))
    finished(folder, run_of(1, method="subg", words=7), result_of("subg", 0.25, 0.5))
    collected = gathering.collect(folder)
    assert "runs.parquet" in gathering.write(collected, folder)
    again = pd.read_parquet(folder.path / "runs.parquet")
    assert again["wga"].tolist() == collected.table["wga"].tolist()
    assert again["seed"].tolist() == collected.table["seed"].tolist()


def test_every_block_says_where_it_comes_from_and_what_it_took(folder):
    for seed in range(2):
        finished(folder, run_of(seed, method="lvlm-va"), result_of("lvlm-va", 0.25, 0.5))
        finished(folder, Job("chapter", "/x/00_tiny.ipynb", {"seed": seed}, {"seed": seed}, "/"), {"a": 1})
        id = finished(folder, Job("experiment", "few", {"seed": seed}, {"seed": seed}, "/"), {})
        (folder.out(id) / "rows.csv").write_text(f"seed,arm,wga\n{seed},a,0.5\n{seed},b,0.5\n")
    done = folder.out(id).parent / "done.json"
    about = json.loads(done.read_text())
    done.write_text(json.dumps(about | {"seconds": 5.0, "peak_memory": 3 * 10**9, "commit": "def"}))
    text = gathering.summary(gathering.collect(folder))
    rest = "processor a chip, date 1970-01-02"
    line = f"Made at commit abc and def, {rest}; 3.5 seconds a run, at most 3.00 GB of memory.\n"
    assert f"# experiment few\n\n2 runs: `tables/few.csv`\n\n{line}" in text
    assert text.count(f"Made at commit abc, {rest}; 2.0 seconds a run") == 2  # the runs' and the chapter's


def test_runs_are_drawn_as_experiments_are(folder):
    for seed in range(3):
        for method, more in (("lvlm-va", 0.2), ("subg", 0.1 + seed / 100)):
            job = run_of(seed, method=method, segmenter="slic", critic="lexicon")
            values = result_of(method, 0.3, 0.3 + more)
            for score in values["scores"].values():
                score["aga"] = 0.5
            finished(folder, job, values)
        job = run_of(seed, method="lvlm-va", segmenter="ppeps-wgm", critic="lexicon")
        finished(folder, job, result_of("lvlm-va", 0.3, 0.4))
        for critic in ("lexicon", "simulated"):
            job = run_of(seed, method="lvlm-va", segmenter="felzenszwalb", critic=critic)
            finished(folder, job, result_of("lvlm-va", 0.3, 0.9 if critic == "simulated" else 0.8))
    names = gathering.write(gathering.collect(folder), folder)
    text = (folder.path / "summary.md").read_text()
    (figure,) = [name for name in names if name.endswith(".png")]
    assert (folder.path / figure).read_bytes().startswith(b"\x89PNG")
    assert "## Figures 9 and 10 of the paper, run knee, segmenter slic, critic lexicon" in text
    assert "| LVLM-VA | words | 3 | +0.200" in text
    assert "| SUBG | train groups | 3 | +0.110 [" in text
    assert "| felzenszwalb | 3 |  | +0.500" in text
    assert "| simulated | 3 |  | +0.600" in text


def test_runs_at_several_lambdas_are_figure_6(folder):
    for weight in (0.2, 2.0):
        for method in ("lvlm-va", "rrr-gt"):
            job = run_of(0, method=method, penalty_weight=weight)
            values = result_of(method, 0.3, weight / 4)
            for score in values["scores"].values():
                score["mu_align"] = 0.5
            finished(folder, replace(job, what="decoy-mnist"), values)
    gathering.write(gathering.collect(folder), folder)
    assert "Figure 6 of the paper, run decoy-mnist" in (folder.path / "summary.md").read_text()


def test_the_papers_numbers_are_those_of_the_book():
    """As chapter 10 quotes them: 0.09, 0.16 and 0.20 for verdict accuracies of 0.42, 0.87 and 1.00."""
    chapter = (Path(__file__).parent.parent / "notebooks/10_baselines_and_ablations.md").read_text()
    assert "| the paper's, real knees and models | 0.09 | 0.16 | 0.20 |" in chapter
    row = pd.Series({"dataset": "knee", "method": "lvlm-va", "segmenter": "ppeps-wgm"})
    for critic, change in (("gpt-4o-mini", "0.09"), ("gpt-4o", "0.16"), ("gpt-5", "0.20")):
        found = gathering._of_the_paper(pd.concat([row, pd.Series({"critic_model": critic})]), "wga")
        assert change in found
