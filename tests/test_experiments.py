import json

import nbformat
import pytest

from lvlmva_lite.experiments.chapters import ChapterError, run_chapter
from lvlmva_lite.experiments.claims import contradicted, load_claims
from lvlmva_lite.experiments.record import record, recorded

CELLS = [
    ("x = 2.0\nname = 'a'", ["parameters"]),
    (
        "from lvlmva_lite.experiments.record import record\nrecord('double', 2 * x)\nrecord('name', name)",
        [],
    ),
    ("import matplotlib.pyplot as plt\nplt.plot([1, 2]);", ["figure"]),
]


def write_notebook(path, extra=()):
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for source, tags in [*CELLS, *extra]:
        metadata = {"tags": tags}
        if "figure" in tags:
            metadata["mystnb"] = {"figure": {"name": "a-line", "caption": "A line."}}
        notebook.cells.append(nbformat.v4.new_code_cell(source, metadata=metadata))
    nbformat.write(notebook, path)


def test_chapter_leaves_notebook_numbers_and_figures(tmp_path):
    write_notebook(tmp_path / "00_x.ipynb")
    values = run_chapter(tmp_path / "00_x.ipynb", {"x": 4.0}, tmp_path / "out", progress=False)
    assert values == {"double": 8.0, "name": "a"}
    assert json.loads((tmp_path / "out/00_x.json").read_text()) == values
    assert (tmp_path / "out/figures/a-line.png").read_bytes().startswith(b"\x89PNG")
    executed = nbformat.read(tmp_path / "out/00_x.ipynb", 4)
    assert recorded(executed) == values


def test_unknown_parameter_is_refused_before_any_work(tmp_path):
    write_notebook(tmp_path / "00_x.ipynb")
    with pytest.raises(ChapterError, match=r"no parameter 'y'; it takes: x, name"):
        run_chapter(tmp_path / "00_x.ipynb", {"y": 1}, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_failing_cell_is_named_and_what_ran_is_kept(tmp_path):
    write_notebook(tmp_path / "00_x.ipynb", extra=[("raise ValueError('the mend')", [])])
    with pytest.raises(ChapterError, match=r"failed in cell 4: ValueError: the mend"):
        run_chapter(tmp_path / "00_x.ipynb", {}, tmp_path / "out", progress=False)
    assert recorded(nbformat.read(tmp_path / "out/00_x.ipynb", 4))["double"] == 4.0


def test_a_name_may_be_recorded_once():
    output = {"metadata": {"scrapbook": {"name": "n", "value": 1}}}
    with pytest.raises(ValueError, match="'n' was recorded twice"):
        recorded({"cells": [{"outputs": [output]}, {"outputs": [output]}]})


def test_only_finite_numbers_are_recorded():
    with pytest.raises(ValueError, match="accuracy is nan"):
        record("accuracy", float("nan"))


CLAIM = """
- id: {id}
  statement: It rises.
  source: ours
  chapter: 00_x
  check: after > before
  status: {status}
  note: "{note}"
"""


@pytest.mark.parametrize(
    ("status", "after", "holds"),
    [
        ("reproduced", 2, True),
        ("reproduced", 1, False),
        ("not reproduced", 1, True),
        ("not reproduced", 2, False),
    ],
)
def test_a_status_that_what_ran_contradicts_is_told(status, after, holds):
    claims = load_claims(CLAIM.format(id="a", status=status, note="seen"))
    lines = contradicted(claims, "00_x", {"before": 1, "after": after})
    assert (lines == []) == holds
    assert contradicted(claims, "another chapter", {}) == []


def test_a_claim_about_an_unrecorded_number_is_an_error():
    with pytest.raises(ValueError, match="claim a: name 'after' is not defined"):
        contradicted(load_claims(CLAIM.format(id="a", status="reproduced", note="")), "00_x", {"before": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CLAIM.format(id="a", status="proved", note=""), "'proved'"),
        (CLAIM.format(id="a", status="not reproduced", note=""), "its note must say"),
        (CLAIM.format(id="a", status="reproduced", note="") * 2, "share an id"),
    ],
)
def test_ill_formed_claims_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        load_claims(text)


def test_a_check_cannot_reach_the_interpreter():
    claims = load_claims(
        CLAIM.format(id="a", status="reproduced", note="").replace("after > before", "open('x')")
    )
    with pytest.raises(ValueError, match="'open'"):
        contradicted(claims, "00_x", {})


def test_claims_that_ship_are_well_formed():
    assert load_claims()
