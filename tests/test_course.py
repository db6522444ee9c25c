"""The assignments: right solutions get all points, blanks none, wrong ones lose what they should."""

import ast
import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext")
pytest.importorskip("pybtex")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import course  # noqa: E402

NAMES = course.names()
TRAIN = {"ps6_right_reasons", "ps7_project"}  # the sets that train networks
RUN = [pytest.param(name, marks=[pytest.mark.slow] * (name in TRAIN)) for name in NAMES]
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS", re.DOTALL)
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION *$", re.DOTALL | re.MULTILINE)


def earned(notebook, since=None):
    """Points by test when the cells run one after the other, as nbgrader runs and counts them.

    Tests before the cell ``since`` are not run and count as passed: where only that cell
    differs from the right solution, they do.
    """
    machine, _ = course.points(notebook)
    namespace, points, reached = {"__name__": "__main__"}, {}, since is None
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        reached = reached or name == since
        if not reached and name in machine:
            points[name] = machine[name]
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, name, "exec"), namespace)
        except Exception:
            points[name] = 0
        else:
            points[name] = machine.get(name, 0)
    return {name: points[name] for name in machine}


def passes_what_students_see(notebook, cell):
    """Whether the answer in ``cell`` passes its test without the hidden part."""
    namespace = {"__name__": "__main__"}
    for one in notebook.cells:
        name = one.metadata.get("nbgrader", {}).get("grade_id", "")
        if one.cell_type != "code" or (name.startswith("test_") and name != f"test_{cell}"):
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(HIDDEN.sub("", one.source), name, "exec"), namespace)
        except Exception:
            return False
        if name == f"test_{cell}":
            return True
    raise ValueError(cell)


def blank(notebook, stub):
    """The student version, with ``stub`` where a solution stood."""
    for cell in notebook.cells:
        cell.source = SOLUTION.sub(lambda found: found[1] + stub, cell.source)
    return notebook


def test_there_are_six_sets_and_a_project():
    assert [name[:3] for name in NAMES] == [f"ps{n}" for n in range(1, 8)]
    assert NAMES[-1] == "ps7_project"


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_marked_as_nbgrader_needs_them(name):
    seen, last = set(), None
    for cell in course.read(name).cells:
        about = cell.metadata.get("nbgrader")
        if about is None:
            continue
        assert about.grade_id not in seen
        seen.add(about.grade_id)
        assert about.schema_version == 3
        assert about.task is False
        assert about.locked == (not about.solution)
        assert ("points" in about) == about.grade
        solved = "### BEGIN SOLUTION" in cell.source
        assert solved == (about.solution and cell.cell_type == "code")
        if about.grade and not about.solution:
            assert about.grade_id == f"test_{last}"  # a test follows what it tests
            assert "### BEGIN HIDDEN TESTS" in cell.source
        last = about.grade_id


@pytest.mark.parametrize("name", RUN)
def test_the_right_solution_gets_all_points(name):
    notebook = course.read(name)
    machine, person = course.points(notebook)
    assert 4 <= len(machine) + len(person) <= 8
    assert earned(notebook) == machine


@pytest.mark.parametrize("stub", ["raise NotImplementedError()", "pass"])
@pytest.mark.parametrize("name", RUN)
def test_a_blank_gets_none(name, stub):
    assert set(earned(blank(course.read(name), stub)).values()) == {0}


@pytest.mark.parametrize("name", RUN)
def test_a_question_left_out_loses_its_own_points_only(name):
    machine, _ = course.points(course.read(name))
    for test in machine:
        cell = test.removeprefix("test_")
        (solved,) = (c.source for c in course.read(name).cells if c.id == cell)
        left_out = SOLUTION.sub(lambda found: found[1] + "raise NotImplementedError()", solved)
        notebook = course.patched(course.read(name), {"cell": cell, "code": left_out})
        assert earned(notebook, since=cell) == machine | {test: 0}


@pytest.mark.parametrize("name", RUN)
def test_wrong_solutions_lose_what_they_should(name):
    wrongs = course.wrong_solutions(name)
    assert len(wrongs) >= 3
    for wrong in wrongs:
        notebook = course.patched(course.read(name), wrong)
        machine, _ = course.points(notebook)
        expected = {test: most - wrong["loses"].get(test, 0) for test, most in machine.items()}
        assert set(wrong["loses"]) <= set(machine)
        assert earned(notebook, since=wrong["cell"]) == expected, wrong["mistake"]
        hidden = wrong.get("hidden", False)
        assert passes_what_students_see(notebook, wrong["cell"]) == hidden, wrong["mistake"]


def test_the_guide_shows_the_points_of_the_sources():
    assert (ROOT / course.GUIDE).read_text() == course.guide(), "run python tools/course.py --guide"


def test_the_guide_names_the_questions_that_need_another():
    need = set()
    for name in NAMES:
        answers, last = {}, None  # by question, the names that its answer gives
        for cell in course.read(name).cells:
            about = cell.metadata.get("nbgrader", {})
            if cell.cell_type != "code" or not (about.get("solution") or about.get("grade")):
                continue
            tree = ast.parse(cell.source)
            if about.solution:
                last = about.grade_id
                answers[last] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            read = {
                node.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
            }
            if any(read & given for question, given in answers.items() if question != last):
                need.add(last)
    (sentence,) = re.findall(
        r"^Questions of a set do not need .*$", (ROOT / course.GUIDE).read_text(), re.MULTILINE
    )
    assert set(re.findall(r"`(\w+)`", sentence)) == need


def test_the_rubric_of_an_answer_that_a_person_reads_adds_up_to_its_points():
    for name in NAMES:
        notebook = course.read(name)
        _, person = course.points(notebook)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        rubrics = [
            (int(most), sum(map(int, re.findall(r"^\| (\d+) \|", rubric, re.MULTILINE))))
            for most, rubric in re.findall(
                r"^## \d+\. [^\n]*\((\d+) points\)$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
            )
        ]
        assert rubrics == [(most, most) for most in person.values()]


def test_no_public_page_gives_the_mistakes_away():
    page = (ROOT / course.GUIDE).read_text()
    for name in NAMES:
        assert not [test for test in course.points(course.read(name))[0] if test in page]
        for wrong in course.wrong_solutions(name):
            assert wrong["mistake"].strip() not in page
            assert wrong["mistake"].strip() in course.common_errors()


@pytest.mark.parametrize("name", NAMES)
def test_sections_to_read_are_named_as_in_the_chapter(name):
    chapters = {path.name[:2]: path.read_text() for path in (ROOT / "notebooks").glob("*.md")}
    sections = {}
    for chapter, text in chapters.items():
        section = part = 0
        for level, heading in re.findall(r"^(##|###) (.+)$", text, re.MULTILINE):
            section, part = (section + 1, 0) if level == "##" else (section, part + 1)
            number = f"{int(chapter)}.{section}" + f".{part}" * (level == "###")
            sections[number] = heading
    named = re.findall(r'(\d+(?:\.\d+)+) "([^"]+)"', course.read(name).cells[0].source)
    assert bool(named) == (name != NAMES[-1])
    for number, heading in named:
        assert sections[number] == heading


def test_a_wrong_solution_for_no_cell_is_refused():
    with pytest.raises(ValueError, match="no solution cell is named 'nowhere'"):
        course.patched(course.read(NAMES[1]), {"cell": "nowhere", "code": ""})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nbgrader_makes_student_versions_and_grades_them(name, tmp_path):
    """End to end, offline, in nbgrader's own way: release, submit, autograde, read the gradebook."""
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: pip install -e '.[course]'")
    import nbformat
    from nbgrader.api import Gradebook
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    assert [path.name for path in course.build(tmp_path, only=[name])] == [f"{name}.zip"]
    wrong = course.wrong_solutions(name)[0]
    assert wrong["mistake"] in (tmp_path / "instructors.md").read_text()
    released = tmp_path / "release" / name / f"{name}.ipynb"
    assert "### BEGIN" not in released.read_text()
    assert "### END" not in released.read_text()
    assert "NotImplementedError" in released.read_text()

    source = nbformat.read(tmp_path / "source" / name / f"{name}.ipynb", 4)
    most = sum(course.points(source)[0].values())
    expected = {"wrong": most - sum(wrong["loses"].values())}
    submissions = {"wrong": course.patched(source, wrong)}
    if name == NAMES[0]:  # the other sets' right and blank ones are graded above, in one process
        expected |= {"right": most, "blank": 0}
        submissions |= {"right": source, "blank": nbformat.read(released, 4)}
    for student, notebook in submissions.items():
        path = tmp_path / "submitted" / student / name / f"{name}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
    config = Config()
    config.CourseDirectory.root = str(tmp_path)
    config.CourseDirectory.course_id = "lvlmva"
    config.Exchange.root = str(tmp_path)
    # A busy machine needs more than nbgrader's 30 s for a cell.
    config.Execute.timeout = config.Execute.startup_timeout = 300
    api = NbGraderAPI(config=config)
    for student in submissions:
        graded = api.autograde(name, student, force=True)
        assert graded["success"], graded["log"]
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        scores = {student: gradebook.find_submission(name, student).score for student in submissions}
    assert scores == expected
