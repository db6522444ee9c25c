import threading
import time

import pytest
import torch

from lvlmva_lite.adjudication_widget import AdjudicationQueue, adjudication_widget
from lvlmva_lite.critic import Case, Critique
from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.files import append_line

pytest.importorskip("ipywidgets")
pytestmark = pytest.mark.usefixtures("no_pyplot_figures")

CERTAINTY = torch.tensor([[0.9, 0.2, 0.0], [0.5, 0.8, 0.1]])


@pytest.fixture
def cases():
    """Two of three segments each; the third of the first has no pixel."""
    found = []
    for i in range(2):
        labels = torch.zeros(6, 6, dtype=torch.int64)
        labels[2:] = 1
        if i:
            labels[5] = 2
        found.append(
            Case(f"x-{i}", torch.rand(1, 6, 6), labels, 3, "cat", "Ears <count>.", torch.ones(6, 6))
        )
    return found


def queue_of(cases, file, **more):
    return AdjudicationQueue(cases, torch.zeros(2, 3, dtype=torch.int64), CERTAINTY, file, **more)


def rulings(file):
    """Its lines without the segments' fingerprints."""
    return [line.rpartition(",")[0] for line in file.read_text().splitlines()]


def test_rulings_on_other_segments_are_not_taken_over(cases, tmp_path):
    file = tmp_path / "rulings.csv"
    queue_of(cases, file).answer("spurious")
    assert queue_of(cases, file).progress[0] == 1
    cases[1].segment_labels[4] = 2  # the same letters, other pixels
    with pytest.raises(ValueError, match="line 2 rules on other segments of x-1"):
        queue_of(cases, file)


def test_least_certain_first_written_at_once_and_resumed(cases, tmp_path):
    file = tmp_path / "rulings.csv"
    waiting = queue_of(cases, file)
    assert waiting.waiting == [(1, 2), (0, 1), (1, 0), (1, 1), (0, 0)]
    waiting.answer("spurious")
    waiting.answer("undecided")
    assert rulings(file) == ["case_id,segment,kind", "x-1,C,spurious", "x-0,B,undecided"]
    again = queue_of(cases, file)
    assert again.progress == (2, 5)
    assert again.waiting[0] == (1, 0)
    assert again.kinds().tolist() == [[0, 3, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="got 'bad'"):
        again.answer("bad")


def test_what_is_taken_back_is_asked_again_also_after_a_restart(cases, tmp_path):
    file = tmp_path / "rulings.csv"
    waiting = queue_of(cases, file, budget=2)
    assert not waiting.undo()
    waiting.answer("spurious")
    waiting.answer("background")
    with pytest.raises(ValueError, match="nothing waits"):
        waiting.answer("spurious")
    assert waiting.undo()
    assert waiting.waiting == [(0, 1)]
    again = queue_of(cases, file, budget=2)
    assert again.waiting == [(0, 1)]
    assert again.undo()
    assert again.waiting == [(1, 2), (0, 1)]
    assert queue_of(cases, file).kinds().sum() == 0
    assert not again.undo()


def test_by_mouse_and_by_keys(cases, tmp_path):
    waiting = queue_of(cases, tmp_path / "r.csv", budget=3)
    view = adjudication_widget(waiting, [Critique("x-0", "c", "<b>A</b>"), Critique("x-1", "c", "words")])
    status, shown, buttons, keys = view.children
    assert "1 of 3: segment C of x-1" in status.value
    assert "Ears &lt;count&gt;." in shown.value
    buttons.children[KINDS.index("spurious")].click()
    assert "&lt;b&gt;A" in shown.value
    keys.value += "b"
    keys.value += "z"
    assert "2 of 3" in status.value
    keys.value += "rs"
    assert status.value == "All 3 segments are ruled on."
    assert buttons.children[0].disabled
    keys.value += "s"  # nothing left to rule on
    assert waiting.progress == (3, 3)
    buttons.children[-1].click()
    assert "3 of 3: segment A of x-1" in status.value
    assert waiting.kinds().tolist() == [[0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n", "has other columns"),
        ("", "has other columns"),
        ("case_id,segment,kind,segments\nx-0,A\n", "line 2 is no answer"),
        ("case_id,segment,kind,segments\nx-0,A,good,0\n", "line 2 is no answer"),
    ],
)
def test_files_of_something_else(cases, tmp_path, content, message):
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        queue_of(cases, tmp_path / "r.csv")


def test_what_does_not_belong_together(cases, tmp_path):
    with pytest.raises(ValueError, match="there are 1 cases"):
        queue_of(cases[:1], tmp_path / "r.csv")
    with pytest.raises(ValueError, match="at least one segment, got 0"):
        queue_of(cases, tmp_path / "r.csv", budget=0)


def test_a_key_and_a_click_at_once_are_two_rulings(cases, tmp_path, monkeypatch):
    def slowly(*line):
        time.sleep(0.2)
        append_line(*line)

    monkeypatch.setattr("lvlmva_lite.adjudication_widget.append_line", slowly)
    waiting = queue_of(cases, tmp_path / "r.csv")
    *_, buttons, keys = adjudication_widget(
        waiting, [Critique(f"x-{i}", "c", "words") for i in range(2)]
    ).children
    key = threading.Thread(target=keys.set_trait, args=("value", "s"))
    key.start()
    buttons.children[KINDS.index("spurious")].click()
    key.join()
    assert rulings(tmp_path / "r.csv") == ["case_id,segment,kind", "x-1,C,spurious", "x-0,B,spurious"]
