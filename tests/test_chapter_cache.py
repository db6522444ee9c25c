"""A chapter runs again when something that it read has changed, and only then."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

for name in ("jupytext", "nbformat", "papermill"):
    pytest.importorskip(name)
import nbformat  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import chapter_cache  # noqa: E402

CODE = """\
import lvlmva_lite.used
from pathlib import Path

folder = Path(lvlmva_lite.used.__file__).parent / "data"
(folder / "table.csv").read_text(), sorted(folder.glob("*.txt"))
"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """A repository of three modules and two tables, and a notebook that imports one and reads one."""
    package = tmp_path / "lvlmva_lite"
    (package / "data").mkdir(parents=True)
    for name in ("__init__.py", "used.py", "late.py", "unused.py", "data/table.csv", "data/other.csv"):
        (package / name).write_text(f"# {name}\n")
    (package / "used.py").write_text("def name(): from lvlmva_lite.late import NAME\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cells = [nbformat.v4.new_code_cell("profile = 'quick'", metadata={"tags": ["parameters"]}, id="one")]
    cells += [
        nbformat.v4.new_code_cell(CODE, id="two"),
        nbformat.v4.new_markdown_cell("Prose.", id="three"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path = tmp_path / "_build" / "00_tiny.ipynb"
    path.parent.mkdir()
    nbformat.write(notebook, path)
    return path


def ran(chapter, code=None, **parameters):
    """Whether the chapter ran, when it was asked for."""
    if code is not None:
        notebook = nbformat.read(chapter, 4)
        notebook.cells[1].source = code
        nbformat.write(notebook, chapter)
    stamp = chapter.parent / "runs" / chapter.stem / "read.json"
    before = stamp.stat().st_mtime_ns if stamp.exists() else None
    chapter_cache.run(
        chapter, {"profile": "quick"} | parameters, chapter.parent / "runs", chapter.parent.parent
    )
    return stamp.stat().st_mtime_ns != before


@pytest.mark.slow
def test_a_chapter_runs_again_when_what_it_read_has_changed(chapter):
    package = chapter.parent.parent / "lvlmva_lite"
    assert ran(chapter)
    assert not ran(chapter)
    notebook = nbformat.read(chapter, 4)
    notebook.cells[2].source = "Other prose."
    nbformat.write(notebook, chapter)
    for path in ("unused.py", "late.py", "data/other.csv", "new.py"):
        (package / path).write_text("CHANGED = True\n")
    os.utime(package / "used.py")  # newer, and the same
    assert not ran(chapter)

    for path in ("used.py", "data/table.csv", "data/new.txt", "__init__.py", "../constraints.txt"):
        (package / path).write_text("CHANGED = 'now'\n")
        assert ran(chapter), path
        assert not ran(chapter), path
    assert ran(chapter, profile="paper")
    assert ran(chapter, profile="paper", code=CODE + "1 + 1")


@pytest.mark.slow
def test_a_program_that_a_chapter_starts_may_have_read_the_whole_package(chapter):
    package = chapter.parent.parent / "lvlmva_lite"
    shell = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import lvlmva_lite.late'])"
    for code in (shell, "!{__import__('sys').executable} -c 'import lvlmva_lite.late'"):
        assert ran(chapter, code=code)
        assert not ran(chapter)
        (package / "late.py").write_text(f"{code!r}\n")
        assert ran(chapter), code


def watched(code, tmp_path):
    record = tmp_path / "watched.jsonl"
    variables = os.environ | {"LVLMVA_WATCH": str(record)}
    first = f"import runpy; runpy.run_path({str(chapter_cache.WATCH)!r})\n"
    subprocess.run([sys.executable, "-c", first + code], env=variables, cwd=tmp_path, check=True)
    return record.read_text().splitlines()


def test_what_a_process_wrote_itself_it_does_not_come_from(tmp_path):
    for name in ("given.csv", "results/table.csv"):
        (tmp_path / "lvlmva_lite" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lvlmva_lite" / name).write_text("1")
    lines = watched(
        "import os, pathlib\n"
        "pathlib.Path('made.txt').write_text('1')\n"
        "pathlib.Path('made.txt').read_text()\n"
        "pathlib.Path('lvlmva_lite/given.csv').read_text()\n"
        "pathlib.Path('lvlmva_lite/results/table.csv').read_text()\n"
        "pathlib.Path('_build').mkdir(); pathlib.Path('_build/x').touch(); open('_build/x')\n"
        "try: open('absent')\n"
        "except FileNotFoundError: pass\n",
        tmp_path,
    )
    files, _ = chapter_cache.read_by(lines, tmp_path)
    tables = {"lvlmva_lite/given.csv", "lvlmva_lite/results/table.csv"}
    assert files == {"constraints.txt", "absent"} | tables


def test_a_forked_process_is_watched_too(tmp_path):
    (tmp_path / "lvlmva_lite").mkdir()
    (tmp_path / "lvlmva_lite" / "given.csv").write_text("1")
    lines = watched(
        "import os\n"
        "if os.fork() == 0:\n"
        "    os.closerange(3, 64); open('lvlmva_lite/given.csv'); os._exit(0)\n"
        "os.wait()\n",
        tmp_path,
    )
    assert chapter_cache.read_by(lines, tmp_path)[0] == {"constraints.txt", "lvlmva_lite/given.csv"}


def test_where_nothing_of_the_package_was_seen_all_of_it_counts(tmp_path):
    (tmp_path / "lvlmva_lite" / "data").mkdir(parents=True)
    for name in ("__init__.py", "data/a.csv"):
        (tmp_path / "lvlmva_lite" / name).touch()
    elsewhere = json.dumps(["read", "/usr/lib/lvlmva_lite/__init__.py"])
    files, folders = chapter_cache.read_by([elsewhere], tmp_path)
    assert files == {"constraints.txt", "lvlmva_lite/__init__.py", "lvlmva_lite/data/a.csv"}
    assert folders == set()
