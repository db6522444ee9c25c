import ast
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from parameters_page import page, parameters_of  # noqa: E402

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", CHAPTERS, ids=lambda path: path.stem)
def test_every_name_of_the_cell_is_there_with_its_default_and_what_it_is(notebook):
    (cell,) = (
        cell.source
        for cell in nbformat.read(notebook, 4).cells
        if "parameters" in cell.metadata.get("tags", ())
    )
    given = {
        target.id: ast.literal_eval(node.value) for node in ast.parse(cell).body for target in node.targets
    }
    rows = parameters_of(notebook)
    assert {name: ast.literal_eval(default) for name, default, _, _ in rows} == given
    assert all(told for *_, told in rows)


def test_the_page_has_a_table_for_each_chapter_and_a_silent_parameter_is_named(tmp_path):
    made = page("# Parameters\n\n{{ parameters }}\n", CHAPTERS)
    assert made.count("## {doc}`") == len(CHAPTERS)
    assert "{{" not in made
    assert (
        "| `n_align` | `100` | a whole number from 1 to 10,000,000 | N, images that the critic is asked about |"
        in made
    )
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("width = 3", metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell("check_parameters(globals(), width=whole_number(1))"),
        ],
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, tmp_path / "bare.ipynb")
    with pytest.raises(ValueError, match=r"bare\.ipynb: say in a comment what the parameter width is"):
        page("", [tmp_path / "bare.ipynb"])
    notebook.cells.pop()
    nbformat.write(notebook, tmp_path / "bare.ipynb")
    with pytest.raises(ValueError, match="check_parameters and the cell differ in width"):
        page("", [tmp_path / "bare.ipynb"])
