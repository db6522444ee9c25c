"""Student versions of the assignments, and a course directory to grade them in.

``assignments/NAME/NAME.md`` (MyST Markdown, jupytext format ``md:myst``) is a problem set with its
solutions and hidden tests, ``assignments/NAME/wrong.yml`` holds the typical wrong solutions and what
each should lose (``hidden: true``: only hidden tests catch it).  ``python tools/course.py`` writes ``build/course/``, a course directory of nbgrader:

- ``release/NAME/NAME.ipynb``: what students get, without solutions and hidden tests;
- ``NAME.zip``: the same, to hand out;
- ``source/NAME/NAME.ipynb``: with both; nbgrader grades by it;
- ``instructors.md``: the typical mistakes, and where each costs points;
- ``nbgrader_config.py`` and ``gradebook.db``.

What was handed in goes to ``build/course/submitted/STUDENT/NAME/NAME.ipynb``; then
``nbgrader autograde NAME`` in ``build/course`` grades it, offline and without a browser.

``--check`` writes nothing and exits 1 if the table of points of ``book/teaching.md`` is not up to date.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import zipfile
from pathlib import Path

import yaml
from nbformat import NotebookNode

import notebooks

ROOT = Path(__file__).resolve().parent.parent
GUIDE = "book/teaching.md"
TABLE = re.compile(r"(?<=<!-- points -->\n).*?(?=<!-- end of points -->)", re.DOTALL)
CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "lvlmva"
c.ExecutePreprocessor.timeout = 300
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}
"""


def names(root: Path = ROOT) -> list[str]:
    """Names of the assignments, in the order of the course."""
    return sorted(path.parent.name for path in (root / "assignments").glob("*/*.md"))


def read(name: str, root: Path = ROOT) -> NotebookNode:
    """The assignment with solutions and hidden tests, as a notebook."""
    notebook = notebooks.read((root / "assignments" / name / f"{name}.md").read_text())
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.id = cell.metadata.nbgrader.grade_id
    return notebook


def title(name: str, root: Path = ROOT) -> str:
    """First heading of the assignment."""
    return re.search(r"^# (.+)$", (root / "assignments" / name / f"{name}.md").read_text(), re.MULTILINE)[1]


def points(notebook: NotebookNode) -> tuple[dict[str, float], dict[str, float]]:
    """Points by ``grade_id``: of the tests that the machine runs, and of the answers that a person reads."""
    machine: dict[str, float] = {}
    person: dict[str, float] = {}
    for cell in notebook.cells:
        about = cell.metadata.get("nbgrader", {})
        if about.get("grade"):
            (person if about.solution else machine)[about.grade_id] = about.points
    return machine, person


def wrong_solutions(name: str, root: Path = ROOT) -> list[dict]:
    """Typical wrong solutions: dicts with "mistake", "cell" (a ``grade_id``), "code" and "loses" (points by test).

    Where "hidden" is true, only the hidden tests catch it.
    """
    return yaml.safe_load((root / "assignments" / name / "wrong.yml").read_text())


def patched(notebook: NotebookNode, wrong: dict) -> NotebookNode:
    """A copy of ``notebook`` in which the wrong solution stands in the place of the right one.

    Raises
    ------
    ValueError : no cell has that ``grade_id``, or it takes no solution
    """
    cells, found = [], False
    for cell in notebook.cells:
        about = cell.metadata.get("nbgrader", {})
        if about.get("grade_id") == wrong["cell"] and about.get("solution"):
            cell, found = NotebookNode(cell, source=wrong["code"]), True
        cells.append(cell)
    if not found:
        raise ValueError(f"no solution cell is named {wrong['cell']!r}")
    return NotebookNode(notebook, cells=cells)


def table(root: Path = ROOT) -> str:
    """The table of points."""
    lines = [
        "| assignment | students' time | questions | points, machine | points, person |",
        "|---|---|---|---|---|",
    ]
    for name in names(root):
        notebook = read(name, root)
        machine, person = points(notebook)
        time = re.search(r"^About ([^,.]+)", notebook.cells[0].source, re.MULTILINE)[1]
        lines.append(
            f"| `{name}`: {title(name, root)} | {time} | {len(machine) + len(person)} "
            f"| {sum(machine.values())} | {sum(person.values()) or '–'} |"
        )
    return "\n".join(lines) + "\n"


def common_errors(root: Path = ROOT) -> str:
    """The wrong solutions of all assignments: the instructor's own copy, which no public page shows."""
    lines = ["# Common errors", "", "Not for students. H: only the hidden tests catch it."]
    for name in names(root):
        lines += ["", f"## {title(name, root)} (`{name}`)", ""]
        for wrong in wrong_solutions(name, root):
            lost = ", ".join(f"{lost} at `{test}`" for test, lost in wrong["loses"].items())
            lines.append(f"- {wrong['mistake'].strip()} Loses {lost}.{' H' * wrong.get('hidden', False)}")
    return "\n".join(lines) + "\n"


def guide(root: Path = ROOT) -> str:
    """The public page with its table of points written anew."""
    return TABLE.sub(lambda _: f"\n{table(root)}\n", (root / GUIDE).read_text())


def build(folder: Path, root: Path = ROOT, only: list[str] | None = None) -> list[Path]:
    """Write nbgrader's course directory into ``folder``; return the zip files of the student versions.

    All assignments, or those named in ``only``.

    What students handed in and what was graded there stays as it is.
    """
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    # nbgrader calls alembic by its name, which lies beside this Python.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nbgrader_config.py").write_text(CONFIG)
    (folder / "instructors.md").write_text(common_errors(root))
    config = Config()
    config.CourseDirectory.root = str(folder.resolve())
    config.CourseDirectory.course_id = "lvlmva"
    config.Exchange.root = str(folder.resolve())  # not used; the default may not be writable
    setup = NotebookNode(
        cell_type="code", id="colab-setup", metadata={"tags": [notebooks.SETUP_TAG]}, execution_count=None,
        outputs=[], source=notebooks.SETUP_CELL.format(**dict(zip(("repository", "tag"), notebooks.repository(root), strict=True))),
    )  # fmt: skip
    zips = []
    for name in only or names(root):
        notebook = read(name, root)
        notebook.cells.insert(1, setup)  # below the title
        source = folder / "source" / name / f"{name}.ipynb"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(notebooks.dumps(notebook))
        made = NbGraderAPI(config=config).generate_assignment(name, force=True)
        if not made["success"]:
            raise ValueError(f"nbgrader could not make {name}: {made['error'] or made['log']}")
        zips.append(folder / f"{name}.zip")
        with zipfile.ZipFile(zips[-1], "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted((folder / "release" / name).iterdir()):
                archive.write(file, f"{name}/{file.name}")
    return zips


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help=f"write nothing; fail if {GUIDE} is stale")
    parser.add_argument("--guide", action="store_true", help=f"write the generated part of {GUIDE}")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "course", metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.check or options.guide:
        expected = guide()
        stale = (ROOT / GUIDE).read_text() != expected
        if stale and options.guide:
            (ROOT / GUIDE).write_text(expected)
            print("wrote", GUIDE)
        elif stale:
            print(f"{GUIDE}: is stale; run python tools/course.py --guide", file=sys.stderr)
        return int(stale and options.check)
    try:
        for made in build(options.out):
            print(made)
    except ImportError as error:
        print(
            f"{error}; install it with: pip install -c constraints.txt 'nbgrader>=0.9.6'", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
