"""The page of benchmarks says what was measured, whatever was measured."""

import copy
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import page  # noqa: E402

STEPS = page.measured()
CLIENT = STEPS["model_client"]


def test_the_page_is_made_of_what_was_measured():
    assert page.PAGE.read_text("utf-8") == page.page(STEPS)
    assert "book/benchmarks" in (ROOT / "_toc.yml").read_text("utf-8")
    for name in re.findall(r"_static/(benchmark-\S+\.svg)", page.PAGE.read_text("utf-8")):
        assert "<svg" in (page.FIGURES / name).read_text("utf-8")
    drawn = {file.name for file in page.FIGURES.glob("benchmark-*.svg")}
    assert drawn == set(re.findall(r"_static/(benchmark-\S+\.svg)", page.PAGE.read_text("utf-8")))


@pytest.mark.parametrize("step", STEPS)
def test_every_step_measures_as_the_ruler_does(step):
    """One file a step, and each ratio beside its peer, its spread and what the results are worth."""
    assert (ROOT / "benchmarks" / f"{step}.py").is_file()
    found = STEPS[step]
    assert found["machine"]["processor"]
    for row in found.get("rows", []):
        assert row["peer"]
        for kind in ("cpu", "wall"):
            low, high = row[kind]["spread"]
            assert low <= row[kind]["ratio"] <= high
            assert row[kind]["seconds"] > 0
    for curve in found.get("curves", []):
        assert len(curve["sizes"]) == len(curve["seconds"]) >= 3


def other_numbers(value):
    """The same structure with each fraction changed, as if it had been measured otherwise."""
    if isinstance(value, dict):
        return {name: other_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [other_numbers(one) for one in value]
    return 1.37 * value + 0.01 if isinstance(value, float) else value


@pytest.mark.parametrize("step", STEPS)
def test_no_ratio_is_typed(step):
    """What was measured is all that the page holds of numbers: others change every ratio and every time."""
    found = STEPS[step]
    before, after = page.section(step, found), page.section(step, other_numbers(copy.deepcopy(found)))
    for ratio in re.findall(r"\*\*[\d.,]+\*\* \(.*?\)", before):
        assert ratio not in after
    for time in re.findall(r"[\d.]+ (?:ms|µs)\b", before.replace(page.words_of(step), "")):
        assert before.count(time) > after.count(time)
    assert not re.search(r"\d\.\d", page.OPENING + re.sub(r"{[^}]*}", "", page.CLIENT))


def test_a_step_with_all_kinds_of_words_has_its_section(tmp_path):
    row = {
        "what": "200 maps", "peer": "scikit-learn 1.9",
        "quality": {"log-likelihood, more is better": [1.25, 1.125]},
        "cpu": {"ratio": 31.25, "spread": [29.5, 33.0], "seconds": 0.0125},
        "wall": {"ratio": 15.5, "spread": [14.0, 16.0], "seconds": 2.5},
    }  # fmt: skip
    curve = {
        "what": "maps", "against": "side", "sizes": [28, 56, 112], "seconds": [0.01, 0.04, 0.16], "exponent": 2.0
    }  # fmt: skip
    found = {name: CLIENT[name] for name in ("date", "commit", "machine")} | {
        "step": "no_such_file", "rows": [row], "curves": [curve, {**curve, "against": "n"}],
        "floor": "two exponentials a pixel",
        "memory": {"network": "a large one", "runs": [{"rows": 8, "peak_gb": 1.5}, {"rows": 24, "peak_gb": 2.25}]},
        "steps": {"training": 1.5, "all": 3.0},
    }  # fmt: skip
    text = page.section("no_such_file", found)
    assert "## No such file" in text
    assert (
        "| 200 maps | scikit-learn 1.9 | **31.2** (29.5 to 33); ours 12.5 ms | **15.5** (14 to 16); ours 2.5 s "
        "| log-likelihood, more is better: 1.25 / 1.12 |" in text
    )
    assert "| maps | side, 28 to 112 | 10 ms to 160 ms | 2.00 |" in text
    assert "**Floor:** two exponentials a pixel" in text
    assert "| 8 | 1.5 |\n| 24 | 2.25 |" in text
    assert "| training | all |\n|---|---|\n| 1.5 | 3 |" in text
    assert ":alt: Time" in text
    assert "exponent 2.00" in text.split(":alt:")[1].splitlines()[0]
    assert page.draw("no_such_file", found, tmp_path / "figure.svg")
    assert not page.draw("bare", {"rows": [row]}, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


@pytest.mark.parametrize("who", ["judge", "critic, drawn before", "critic"])
def test_sixteen_in_flight_are_worth_fourteen_and_memory_is_flat(who):
    found = CLIENT[who]
    assert (CLIENT["in_flight"][0], CLIENT["in_flight"][-1]) == (1, 16)
    assert CLIENT["seconds_per_answer"] == 0.2
    assert found["answers_per_second"][-1] >= 14 * found["answers_per_second"][0]
    memory = found["megabytes"]
    assert memory[-1] <= 1.02 * memory[len(memory) // 10]
    assert CLIENT["cases"] >= 2000


def test_the_figure_of_the_client_is_drawn_of_what_was_measured(tmp_path):
    assert page.draw("model_client", json.loads(json.dumps(CLIENT)), tmp_path / "figure.svg")
    assert "<svg" in (tmp_path / "figure.svg").read_text("utf-8")


def test_make_bench_measures_every_step_and_then_writes_the_page():
    recipe = (ROOT / "Makefile").read_text("utf-8").partition("\nbench:")[2].partition("\n\n")[0]
    assert "page.py" in recipe.splitlines()[-1]
    measuring = {
        file.stem
        for file in (ROOT / "benchmarks").glob("*.py")
        if "timing import" in file.read_text("utf-8")
    }
    assert measuring >= set(STEPS)
