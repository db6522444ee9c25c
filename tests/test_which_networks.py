"""The page of networks that work is what the code gives."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import which_networks  # noqa: E402

# A second each, or less; the others are large.
QUICK = [name for name in which_networks.NETWORKS if "torchvision" not in name]


def rows(names):
    return {name: which_networks.row(which_networks.NETWORKS[name]) for name in names}


def check(names):
    found = rows(names)
    assert which_networks.differs(which_networks.PAGE.read_text(), which_networks.lines(found)) == []
    for row in found.values():
        assert row.explained == "refused" or row.error < 1e-2


@pytest.mark.parametrize("name", QUICK[::4])
def test_some_rows_of_the_page(name):
    check([name])


@pytest.mark.slow
def test_every_row_of_the_page():
    check(which_networks.NETWORKS)
    table = [line for line in which_networks.PAGE.read_text().splitlines() if line.startswith("| ")]
    assert len(table) == 1 + len(which_networks.NETWORKS)


def test_a_page_that_differs_is_told():
    page = "| a | deeplift-shap | 1e-07 | yes | |\n| b | refused |  | refused | no logits |"
    assert which_networks.differs(page, ["| a | deeplift-shap | 5e-07 | yes | |"]) == []
    for line in (
        "| a | deeplift-shap | 3e-01 | yes | |",
        "| a | deeplift-shap |  | yes | |",
        "| a | integrated-gradients | 1e-07 | yes | |",
        "| a | deeplift-shap | 1e-07 | refused | |",
        "| b | refused |  | refused | other words |",
        "| c | refused |  | refused | no logits |",
    ):
        assert which_networks.differs(page, [line]) == [line]
