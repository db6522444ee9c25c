import json

import nbformat
import pytest

from lvlmva_lite.experiments.chapters import ChapterError, run_chapter
from lvlmva_lite.experiments.claims import NOT_STATED, contradicted, load_claims
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
    assert not [
        output for cell in executed.cells for output in cell.outputs if output.output_type == "stream"
    ]


def test_unknown_parameter_is_refused_before_any_work(tmp_path):
    write_notebook(tmp_path / "00_x.ipynb")
    with pytest.raises(ChapterError, match=r"no parameter 'y'; it takes: x, name"):
        run_chapter(tmp_path / "00_x.ipynb", {"y": 1}, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", ["its own folder", "symlink", "hard link"])
def test_a_chapter_is_never_overwritten_with_its_outputs(tmp_path, way):
    chapter = tmp_path / "chapters/00_x.ipynb"
    chapter.parent.mkdir()
    write_notebook(chapter)
    before, out = chapter.read_bytes(), tmp_path / "out"
    if way == "its own folder":
        out = tmp_path / "chapters/../chapters"
    else:
        out.mkdir()
        link = out.joinpath("00_x.ipynb")
        link.symlink_to(chapter) if way == "symlink" else link.hardlink_to(chapter)
    with pytest.raises(ChapterError, match="would be overwritten with its own outputs"):
        run_chapter(chapter, {}, out, progress=False)
    assert chapter.read_bytes() == before


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


def test_a_claim_about_an_unrecorded_number_is_told():
    claims = load_claims(CLAIM.format(id="a", status="reproduced", note=""))
    told = "claim a names 'after', which 00_x did not record; it recorded: before"
    assert contradicted(claims, "00_x", {"before": 1}) == [told]
    with pytest.raises(ValueError, match=told):
        claims[0].holds({"before": 1})


def test_a_name_is_missed_although_the_check_is_decided_before_it():
    text = CLAIM.format(id="a", status="not reproduced", note="seen")
    claims = load_claims(text.replace("after > before", "before > 1 and after > 1"))
    assert claims[0].names == ["before", "after"]
    assert "names 'after'" in contradicted(claims, "00_x", {"before": 1})[0]


def test_a_check_that_cannot_be_evaluated_is_told():
    claims = load_claims(CLAIM.format(id="a", status="not reproduced", note="seen"))
    (line,) = contradicted(claims, "00_x", {"before": 1, "after": "text"})
    assert line.startswith("claim a: 'after > before' cannot be evaluated: TypeError")


ROW = CLAIM.format(id="a", status="reproduced", note="")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CLAIM.format(id="a", status="proved", note=""), "'proved'"),
        (CLAIM.format(id="a", status="not reproduced", note=""), "its note must say"),
        (CLAIM.format(id="a", status="reproduced", note="") * 2, "share an id: a"),
        (ROW + "  colour: red", "claim a has an unknown field colour; there are: id, statement"),
        (ROW.replace("  chapter: 00_x\n", ""), "claim a lacks chapter"),
        (ROW.replace("after > before", "true"), "claim a: check must be a text, got True"),
        (
            ROW.replace("after > before", "after >"),
            "claim a: its check 'after >' cannot be used: it is no expression",
        ),
        (ROW.replace("after > before", "1 < 2"), "claim a: its check '1 < 2' names no recorded number"),
        (ROW + "  data: knees", "claim a: data must be one of DecoyMNIST, .* got 'knees'"),
        (ROW + "  experiment: E9", "claim a: experiment must be one of E1, .* got 'E9'"),
        ("- a sentence", "claim number 1 is 'a sentence'"),
    ],
)
def test_ill_formed_claims_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        load_claims(text)


def test_a_check_cannot_reach_the_interpreter():
    with pytest.raises(ValueError, match=r"claim a: its check .* Call \"open\('x'\)\" is not allowed"):
        load_claims(ROW.replace("after > before", "open('x')"))


@pytest.mark.parametrize(
    ("id", "experiment", "data"),
    [
        ("E5-x", "E5", "DecoyMNIST"),
        ("E2-x", "E2", "not stated"),
        ("E9-x", "ours", "DecoyMNIST"),
        ("x", "ours", "DecoyMNIST"),
    ],
)
def test_experiment_and_data_follow_from_the_id_where_the_file_is_silent(id, experiment, data):
    (claim,) = load_claims(CLAIM.format(id=id, status="reproduced", note=""))
    assert (claim.experiment, claim.data) == (experiment, data)
    text = CLAIM.format(id=id, status="reproduced", note="") + "  experiment: E3\n  data: skin phantom"
    assert (load_claims(text)[0].experiment, load_claims(text)[0].data) == ("E3", "skin phantom")


def test_claims_that_ship_are_well_formed_and_say_their_data():
    claims = load_claims()
    assert claims
    assert [claim.id for claim in claims if claim.data == NOT_STATED] == []
