"""The page of benchmarks says what was measured."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import page  # noqa: E402

MEASURED = json.loads(page.MEASURED.read_text("utf-8"))


def test_the_page_is_made_of_what_was_measured():
    assert page.PAGE.read_text("utf-8") == page.page(MEASURED)
    assert page.FIGURE.is_file()
    assert "book/benchmarks" in (ROOT / "_toc.yml").read_text("utf-8")


@pytest.mark.parametrize("who", ["judge", "critic, drawn before"])
def test_sixteen_in_flight_are_worth_fourteen_and_memory_is_flat(who):
    found = MEASURED[who]
    assert (MEASURED["in_flight"][0], MEASURED["in_flight"][-1]) == (1, 16)
    assert MEASURED["seconds_per_answer"] == 0.2
    assert found["answers_per_second"][-1] >= 14 * found["answers_per_second"][0]
    memory = found["megabytes"]
    assert memory[-1] <= 1.02 * memory[len(memory) // 10]
    assert MEASURED["cases"] >= 2000


def test_the_figure_is_drawn_of_what_was_measured(tmp_path):
    pytest.importorskip("matplotlib")
    page.draw(MEASURED, tmp_path / "figure.svg")
    assert "<svg" in (tmp_path / "figure.svg").read_text("utf-8")
