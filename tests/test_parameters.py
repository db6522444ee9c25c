"""Parameters of chapters: what is refused, where, and that it is one line."""

import json
import math
from pathlib import Path

import nbformat
import papermill
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.exceptions import PapermillExecutionError

from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.experiments import parameters
from lvlmva_lite.experiments.chapters import ChapterError, run_chapter
from lvlmva_lite.experiments.parameters import (
    KINDS,
    ParameterError,
    any_number,
    any_text,
    as_setting,
    check_parameters,
    declared,
    file,
    file_or_folder,
    folder,
    known_critic,
    one_of,
    starting_weights,
    true_or_false,
    whole_number,
)
from lvlmva_lite.experiments.sweep_spec import SpecError, chapter_parameters

CHAPTERS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(anything, st.integers(-5, 5), st.integers(0, 10), st.booleans())
def test_a_number_is_within_its_bounds_and_no_truth_value(value, low, more, or_none):
    high = low + more
    is_number = type(value) is int or (type(value) is float and math.isfinite(value))
    inside = is_number and low <= value <= high
    assert any_number(low, high, or_none=or_none).fits(value) == (inside or (value is None and or_none))
    whole = inside and type(value) is int
    assert whole_number(low, high, or_none=or_none).fits(value) == (whole or (value is None and or_none))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_is_finite_where_there_are_no_bounds_too(value):
    assert not any(kind.fits(value) for kind in (any_number(), any_number(0), as_setting("penalty_weight")))
    assert any_number().fits(10**400)


@given(anything)
def test_every_kind_knows_its_own(value):
    assert any_text().fits(value) == isinstance(value, str)
    assert true_or_false().fits(value) == isinstance(value, bool)
    assert one_of("a", "b").fits(value) == (value in ("a", "b"))


def test_paths_are_there_or_empty_where_that_is_meant(tmp_path):
    (tmp_path / "a.csv").touch()
    there, table, none = str(tmp_path), str(tmp_path / "a.csv"), str(tmp_path / "none")
    assert starting_weights().fits("none")
    assert starting_weights().fits(table)
    assert not any(map(starting_weights().fits, ("vgg", "", there, 3, ["none"], None)))
    for kind, fitting in ((folder, {there}), (file, {table}), (file_or_folder, {there, table})):
        fits = {value for value in (there, table, none, "", "\0", None, 1) if kind().fits(value)}
        assert fits == fitting
        assert kind(or_empty=True).fits("")
        assert not kind(or_empty=True).fits(none)


def test_the_critics_are_those_there_are():
    assert known_critic().fits("lexicon")
    assert not known_critic().fits("magic")


def test_the_words_say_the_bounds():
    assert whole_number(1, 50).words == "a whole number from 1 to 50"
    assert any_number(0, or_none=True).words == "a number of at least 0 or None"
    assert one_of("quick", "paper").words == "'quick' or 'paper'"


@settings(deadline=None)
@given(st.integers(-5, 60) | st.floats(-5, 60) | st.sampled_from(["contrast", "logit", "other"]))
@pytest.mark.parametrize("name", ["n_align", "n_segments", "penalty_weight", "align_epochs", "explain"])
def test_a_setting_is_what_the_configuration_takes(name, value):
    try:
        Config(**{name: value})
        taken = True
    except ConfigError:
        taken = False
    assert as_setting(name).fits(value) == taken


def test_a_setting_without_bounds_is_no_kind():
    assert as_setting("n_segments", or_none=True).words == "a whole number from 1 to 50 or None"
    for name in ("n_segment", "model", "tolerance"):
        with pytest.raises(ValueError, match=f"'{name}' has no choices or bounds"):
            as_setting(name)


def test_the_first_that_cannot_work_is_told():
    check_parameters({"seed": 3}, seed=whole_number(0))
    with pytest.raises(ParameterError, match=r"^seed must be a whole number of at least 0, got -1$"):
        check_parameters({"seed": -1}, seed=whole_number(0))


def test_a_name_that_papermill_was_given_must_be_one():
    cells = ["", "seed = 0", "# Parameters\nseed = 1\nsead = 2\n"]
    with pytest.raises(ParameterError, match="there is no parameter 'sead'; there are: seed"):
        check_parameters({"seed": 1, "sead": 2, "In": cells}, seed=whole_number(0))
    check_parameters({"seed": 1, "other": 2, "In": cells[:2]}, seed=whole_number(0))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_parameter_of_a_chapter_is_declared_and_its_default_fits(chapter):
    defaults = chapter_parameters(chapter, {})
    kinds = declared(chapter)
    assert {*kinds} == {*defaults}
    assert all(kinds[name].fits(value) for name, value in defaults.items())
    cells = [cell for cell in json.loads(chapter.read_text())["cells"] if cell["cell_type"] == "code"]
    first = next(i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", ()))
    assert "check_parameters(" in "".join(cells[first + 1]["source"]), "it stands in the cell after them"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_what_is_declared_is_read_as_python_reads_it(chapter):
    cells = [cell for cell in json.loads(chapter.read_text())["cells"] if cell["cell_type"] == "code"]
    (code,) = (text for cell in cells if "check_parameters(" in (text := "".join(cell["source"])))
    call = code[code.index("check_parameters(") :]
    end = next(i for i in range(len(call)) if call[: i + 1].count("(") == call[: i + 1].count(")") > 0)
    told = {}
    eval(call[: end + 1], {**KINDS, "check_parameters": lambda _, **kinds: told.update(kinds)})
    assert {name: kind.words for name, kind in told.items()} == {
        name: kind.words for name, kind in declared(chapter).items()
    }


def notebook_in(folder, *, code=""):
    cells = [
        nbformat.v4.new_code_cell("seed = 0\nkind = 'a'", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "from lvlmva_lite.experiments.parameters import check_parameters, one_of, whole_number\n"
            "check_parameters(globals(), seed=whole_number(0), kind=one_of('a', 'b'))\n" + code
        ),
    ]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    file = folder / "tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), file)
    return file


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("kind", "c"), ("seed", True)])
def test_a_wrong_value_is_refused_before_a_kernel_starts(tmp_path, monkeypatch, name, value):
    file = notebook_in(tmp_path)
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    with pytest.raises(ChapterError, match=rf"^tiny.ipynb: {name} must be .*, got {value!r}$"):
        run_chapter(file, {name: value}, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SpecError, match=rf"^tiny.ipynb: {name} must be .*, got {value!r}$"):
        chapter_parameters(file, {name: value})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"), [({"seed": -1}, "at least 0, got -1"), ({"sead": 1}, "no parameter 'sead'")]
)
def test_plain_papermill_is_refused_by_the_chapter(tmp_path, given, message):
    file = notebook_in(tmp_path, code="raise SystemExit('it went on')")
    with pytest.raises(PapermillExecutionError) as failed:
        papermill.execute_notebook(
            str(file), str(tmp_path / "out.ipynb"), parameters=given, progress_bar=False
        )
    assert failed.value.ename == "ParameterError"
    assert message in failed.value.evalue
    assert "\n" not in failed.value.evalue


def test_a_notebook_that_says_nothing_is_held_to_the_types_of_its_defaults(tmp_path):
    file = notebook_in(tmp_path)
    content = json.loads(file.read_text())
    del content["cells"][1]
    file.write_text(json.dumps(content))
    assert parameters.declared(file) == {}
    with pytest.raises(SpecError, match="seed must be a whole number, got 'x'"):
        chapter_parameters(file, {"seed": "x"})
