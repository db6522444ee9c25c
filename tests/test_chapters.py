"""The chapters as their readers run them: with other parameters, with a model, beside the command line."""

from pathlib import Path

import pytest
from answering_server import AnsweringServer

from lvlmva_lite import methods
from lvlmva_lite.experiments.chapters import run_chapter
from lvlmva_lite.tasks import DecoyMNIST

ROOT = Path(__file__).parent.parent
SENTINEL = "sentinel-key-never-to-be-seen"


@pytest.mark.slow
def test_chapter_00_and_the_command_line_are_one_method(tmp_path):
    """Same seed and sizes, other than the defaults: same numbers, step by step or in one call."""
    notebook = ROOT / "notebooks/00_lvlm_va_in_ten_minutes.ipynb"
    parameters = {"seed": 4, "n_align": 120, "n_segments": 4, "explain": "logit"}
    values = run_chapter(notebook, parameters | {"epochs": 1}, tmp_path, progress=False)
    task = DecoyMNIST()
    summary = methods.run(task, task.config(**parameters, train_epochs=1, align_epochs=1)).summary()
    for name in (
        "accuracy_before",
        "accuracy_after",
        "accuracy_ground_truth_masks",
        "mu_align_before",
        "mu_align_after",
        "verdict_accuracy",
        "n_cases",
    ):
        # Sums in another order may move a prediction or two of 10 000.
        assert values[name] == pytest.approx(summary[name], abs=2e-3), name


@pytest.mark.slow
def test_chapter_05_with_a_model_then_replayed_and_no_key_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    notebook = ROOT / "notebooks/05_critic_and_judge.ipynb"
    common = {"critic_model": "tiny", "store": str(tmp_path / "store"), "n_cases": 30}
    with AnsweringServer() as server:
        asked = {"provider": "openai", "base_url": server.url, "no_cost": True, **common}
        values = run_chapter(notebook, asked, tmp_path / "asked", progress=False)
        assert len(server.bodies) >= 30
        n_calls = len(server.bodies)
        replayed = run_chapter(
            notebook, {"provider": "replay", **common}, tmp_path / "replayed", progress=False
        )
        assert len(server.bodies) == n_calls
    assert replayed == values
    assert "--- openai" in (tmp_path / "asked" / notebook.name).read_text()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert SENTINEL.encode() not in file.read_bytes(), file
