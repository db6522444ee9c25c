import pytest

from lvlmva_lite import tasks
from lvlmva_lite.experiments import group_arms, setting_arms
from lvlmva_lite.experiments.setting_arms import PAPER, setting_rows
from lvlmva_lite.registry import EXPERIMENTS


@pytest.mark.parametrize(
    ("dataset", "same"), [("decoy-mnist", {"smoothing", "fill"}), ("knee", {"keep_unjudged"})]
)
def test_each_departure_stands_alone_on_either_side(monkeypatch, dataset, same):
    task = tasks.get(dataset)()
    config = task.config()
    assert {name for name in PAPER if getattr(config, name) == PAPER[name]} == same

    class Stub:
        pass

    Stub.config = config
    asked = {}
    monkeypatch.setattr(
        setting_arms, "ablation_rows", lambda prepared, arms, critics: asked.update(arms) or [critics]
    )
    assert setting_rows(Stub) == [()]
    departures = {*PAPER} - same
    assert asked["setting"]["ours"] == {}
    whole = asked["setting"]["the paper's"]
    assert whole == {name: PAPER[name] for name in departures}
    assert {*asked["one of ours"]} == {*asked["one of the paper's"]} == departures
    for name in departures:
        assert asked["one of the paper's"][name] == {name: PAPER[name]}
        assert asked["one of ours"][name] == {one: PAPER[one] for one in departures - {name}}
        task.changed(config, **asked["one of ours"][name])


@pytest.mark.slow
def test_the_papers_setting_is_run_as_it_says(monkeypatch):
    task = tasks.get("decoy-mnist")()
    prepared = setting_arms.prepare(
        task, task.config(n_align=60, train_epochs=1, align_epochs=1, n_explained=20)
    )
    rows = setting_rows(prepared)
    assert [row["arm"] for row in rows if row["ablation"] == "setting"] == ["ours", "the paper's"]
    settings = {"explain": "logit", "balanced": False, "keep_unjudged": True}
    changed = prepared.changed(**settings)
    alone = group_arms.ablation_rows(changed, {}, critics=())[1]
    theirs = next(row for row in rows if row["arm"] == "the paper's")
    assert theirs["accuracy"] == alone["accuracy"]


def test_every_task_of_the_paper_has_the_experiment():
    assert {f"{name}_paper_setting" for name in ("decoy", "knee", "skin")} <= {*EXPERIMENTS.names()}
