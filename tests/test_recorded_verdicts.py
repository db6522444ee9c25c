"""Verdicts on real skin, read without and with the marked foreign objects."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from lvlmva_lite.experiments import recorded_verdicts
from lvlmva_lite.experiments.tables import recorded_table


class Images(SimpleNamespace):
    def subset(self, indices):
        return Images(images=self.images[indices], spurious_masks=self.spurious_masks[indices])


def test_an_alarm_on_a_marked_object_is_none_once_the_truth_has_it(monkeypatch):
    """One image of four columns, a segment each: patch, all on an object, a little on it, on skin."""
    labels = torch.arange(4).expand(1, 4, 4)
    evidence = torch.ones(1, 4, 4)
    patch, objects = torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 4, 4, dtype=torch.bool)
    patch[..., 0] = True
    objects[..., 1] = True
    objects[:, 0, 2] = True  # a quarter of the evidence
    found = SimpleNamespace(
        indices=torch.tensor([1]), cases=[None], attributions=evidence,
        segments=SimpleNamespace(labels=labels, n_segments=4),
    )  # fmt: skip
    train = Images(
        names=("b", "a"), images=torch.zeros(2, 3, 4, 4), spurious_masks=torch.cat([~patch, patch])
    )
    verdicts = {"strict": torch.tensor([[1, 1, 1, 1]]), "right": torch.tensor([[1, 1, 0, 2]])}
    monkeypatch.setattr(
        recorded_verdicts, "_judged", lambda *of: iter([("critic-2", found, verdicts, train)])
    )
    asked = []
    monkeypatch.setattr(
        recorded_verdicts,
        "foreign_object_masks",
        lambda names, size: asked.append((names, size)) or objects.numpy(),
    )
    rows = pd.DataFrame(recorded_verdicts.foreign_object_rows(0, data_root="anywhere"))
    assert asked == [(["a"], 4)]
    by_hand = {
        ("strict", False): (1, 3, 3, 2, 2, 0.0), ("right", False): (1, 3, 1, 2, 1, 2 / 3),
        ("strict", True): (2, 2, 2, 1, 1, 0.0), ("right", True): (2, 2, 0, 1, 0, 1.0),
    }  # fmt: skip
    columns = [
        "n_spurious", "n_others", "n_false_alarms", "n_others_touching", "n_false_alarms_touching",
        "verdict_specificity",
    ]  # fmt: skip
    for (critic, with_objects), expected in by_hand.items():
        (row,) = rows[(rows["critic"] == critic) & (rows["objects"] == with_objects)][columns].to_numpy()
        assert tuple(row) == pytest.approx(expected)


def test_a_prompt_stands_on_the_cases_of_each_smaller_one(monkeypatch):
    """Prompt 2 answered cases 7, 8, 9; prompt 1 only 9 and 7, in that order.  Segment 1 is spurious."""
    verdicts = {7: [0, 1], 8: [1, 1], 9: [1, 0]}

    def judged(prompt, indices):
        found = SimpleNamespace(
            indices=torch.tensor(indices), truth=torch.tensor([[0, 1]] * len(indices)),
            cases=[SimpleNamespace(case_id=f"some-images-{index}") for index in indices],
        )  # fmt: skip
        return prompt, found, {"who": torch.tensor([verdicts[index] for index in indices])}, None

    both = [judged("critic-1", [9, 7]), judged("critic-2", [7, 8, 9])]
    monkeypatch.setattr(recorded_verdicts, "_judged", lambda *of: iter(both))
    rows = pd.DataFrame(recorded_verdicts.verdict_rows("some", 0)).set_index(["prompt", "cases_of"])
    assert set(rows["source"]) == {"some-images"}
    by_hand = {
        ("critic-1", "critic-1"): (2, 1, 1), ("critic-2", "critic-1"): (2, 1, 1), ("critic-2", "critic-2"): (3, 1, 2),
    }  # fmt: skip
    columns = ["n_cases", "n_missed", "n_false_alarms"]
    assert {key: tuple(row) for key, row in rows[columns].iterrows()} == by_hand


def test_the_table_without_objects_is_the_one_recorded_before():
    objects, before = recorded_table("skin_foreign_objects")[0], recorded_table("skin_verdicts")[0]
    before = before[before["cases_of"] == before["prompt"]].reset_index(drop=True)
    without = objects[~objects["objects"]].drop(
        columns=["objects", "n_others_touching", "n_false_alarms_touching"]
    )
    assert without.reset_index(drop=True).equals(before[list(without)])
    assert recorded_verdicts.foreign_object_sweep(3, data_root="no/such/folder") == []
