import dataclasses
import json
import math

import pandas as pd
import pytest
import torch

from lvlmva_lite import methods, pipeline
from lvlmva_lite.datasets import knee_phantom, skin_phantom
from lvlmva_lite.experiments import group_arms
from lvlmva_lite.models import predict, predict_proba
from lvlmva_lite.tasks import Knee, Skin, get

TINY = {
    "train_epochs": 1, "n_align": 20, "n_baselines": 2, "n_explained": 4,
    "align_epochs": 1, "batch_size": 32, "n_segments": 3,
}  # fmt: skip
KNEE = Knee(image_size=32)


@pytest.fixture(scope="module", autouse=True)
def few_images():
    """Splits of a few small phantoms in place of thousands."""

    def few(task, split, seed, rate):
        draw = {"knee": knee_phantom, "skin": skin_phantom}[task.name]
        n = 200 if split == "train" else 80
        return draw(split, size=32, n=n, marker_rate=rate, random_state=seed)

    def load(task, split, *, seed, clean=False):
        return few(task, split, seed, (0.0, 0.0) if clean else None)

    def marked(task, split, *, seed):
        return few(task, split, seed, (1.0, 1.0))

    with pytest.MonkeyPatch.context() as patch:
        for task in (Knee, Skin):
            patch.setattr(task, "load", load)
            patch.setattr(task, "marked", marked)
        yield


@pytest.fixture(scope="module")
def prepared():
    return pipeline.prepare(KNEE, KNEE.config(**TINY))


def test_sampling_shares_are_those_of_a_sorted_list(prepared):
    shares = group_arms.sampling_shares(prepared)
    p = predict_proba(prepared.model, prepared.train.images).double().numpy()
    shows = [bool(mask.any()) for mask in prepared.train.spurious_masks]
    labels = prepared.train.labels.tolist()
    entropy = [-sum(q * math.log(q) for q in row if q > 0) for row in p]
    surest = sorted(range(200), key=lambda i: entropy[i])

    def share(chosen):
        chosen = list(chosen)
        assert len(chosen) == 20
        return sum(shows[i] for i in chosen) / 20

    def of_class(y):
        return [i for i in surest if labels[i] == y]

    # Entropies near zero are equal in float32: an image more or less at the edge.
    one = 1.01 / 20
    assert shares["spurious_all"] == pytest.approx(sum(shows) / 200)
    assert shares["spurious_low"] == pytest.approx(share(surest[:20]), abs=one)
    assert shares["spurious_high"] == pytest.approx(share(surest[-20:]), abs=one)
    low = [*of_class(0)[:10], *of_class(1)[:10]]
    high = [*of_class(0)[-10:], *of_class(1)[-10:]]
    assert shares["spurious_low_balanced"] == pytest.approx(share(low), abs=one)
    assert shares["spurious_high_balanced"] == pytest.approx(share(high), abs=one)
    kinds = {f"spurious_{s}{b}" for s in ("low", "random", "high") for b in ("", "_balanced")}
    assert set(shares) == kinds | {"spurious_all"}
    assert all(0 <= value <= 1 for value in shares.values())


@pytest.mark.slow
def test_a_row_for_every_arm_and_each_is_what_a_run_of_its_own_gives(prepared):
    rows = group_arms.arm_rows(prepared)
    assert [row["arm"] for row in rows] == ["before", *group_arms.ARMS, "other words"]
    by_arm = {row["arm"]: row for row in rows}
    measures = {"accuracy", "accuracy_clean", "mu_align", "wga", "aga"}
    groups = {f"group_{i}" for i in range(4)}
    right = predict(prepared.model, prepared.test.images) == prepared.test.labels
    assert by_arm["before"]["accuracy"] == pytest.approx(right.double().mean().item())
    for arm, row in by_arm.items():
        assert measures | groups <= set(row)
        assert row["wga"] == min(row[group] for group in groups)
        assert row["aga"] == pytest.approx(sum(row[group] for group in groups) / 4)
        assert ("verdict_accuracy" in row) == (arm in ("lvlm-va", "other words"))
        assert ("spurious_low" in row) == (arm == "before")
        assert ("trials" in row) == (arm != "before")
        if arm in group_arms.ARMS:
            trials = json.loads(row["trials"])
            assert [{k: v for k, v in t.items() if k != "score"} for t in trials] == [
                *methods.get(arm).trials
            ]
    for method in ("rrr-gt", "subg"):
        alone = methods.run(KNEE, KNEE.config(**TINY), method=method).summary()
        assert by_arm[method]["wga"] == pytest.approx(alone["wga_after"])
        assert by_arm[method]["aga"] == pytest.approx(alone["aga_after"])


def test_changes_are_differences_seed_by_seed():
    before, after = [0.2, 0.4, 0.3], [0.5, 0.5, 0.5]
    table = pd.DataFrame(
        [{"seed": s, "arm": "before", "wga": b, "aga": 0.5} for s, b in enumerate(before)]
        # another order of seeds: they must be paired by number
        + [{"seed": s, "arm": "dfr", "wga": after[s], "aga": 0.5 + s} for s in (2, 0, 1)]
        + [{"seed": s, "arm": "subg", "failed": "a group is empty"} for s in range(3)]
    )
    wga, aga = group_arms.changes(table, {"subg": "SUBG", "dfr": "DFR"}).to_dict("records")
    assert (wga["measure"], wga["method"], aga["measure"]) == ("WGA", "DFR", "AGA")
    assert wga["mean"] == pytest.approx(0.2)
    assert wga["sd"] == pytest.approx(0.1)
    assert aga["mean"] == pytest.approx(1)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # Student's t, 2 degrees of freedom
    assert (wga["low"], wga["high"]) == pytest.approx((0.2 - half, 0.2 + half))
    assert wga["p"] == wga["smallest p"] == 0.25  # 2 of 2^3 signs


def test_a_method_that_the_data_do_not_allow_says_so_and_stops_no_other(prepared):
    nobody_in_the_last = dataclasses.replace(prepared.train, groups=prepared.train.groups.clamp(max=2))
    hollow = dataclasses.replace(prepared, train=nobody_in_the_last)
    _, subg, _ = group_arms.arm_rows(hollow, ["subg"], n_trials=1)
    assert subg.keys() == {"arm", "failed"}
    assert prepared.train.group_names[3] in subg["failed"]


def test_other_words_describe_the_same_data_set_otherwise():
    for dataset, name in group_arms.OTHER_WORDS.items():
        other = group_arms.class_description(name)
        assert other != group_arms.class_description(dataset)
        assert get(dataset)().config(description=other).description == other


def test_every_arm_of_the_ablations_is_a_config_and_each_has_one_default():
    for arms in group_arms.ABLATIONS.values():
        configs = [KNEE.config(**settings) for settings in arms.values()]
        assert configs.count(KNEE.config()) == 1
        assert len({repr(config) for config in configs}) == len(configs)


@pytest.mark.slow
def test_ablation_rows_measure_each_arm_from_the_same_model(prepared):
    ablations = {
        "J": {"2": {"n_segments": 2}, "3": {}},
        "lambda": {"0": {"penalty_weight": 0.0}, "1": {}},
    }
    rows = group_arms.ablation_rows(prepared, ablations)
    names = [(row["ablation"], row["arm"]) for row in rows]
    critics = [f"simulated {accuracy:g}" for accuracy in group_arms.PAPER_CRITICS]
    assert names == [
        ("before", "before"), ("critic", "lexicon"), *(("critic", name) for name in critics),
        ("J", "2"), ("J", "3"), ("lambda", "0"), ("lambda", "1"),
    ]  # fmt: skip
    by_name = dict(zip(names, rows, strict=True))
    default = {k: v for k, v in by_name["critic", "lexicon"].items() if k not in ("ablation", "arm")}
    for same in (("J", "3"), ("lambda", "1")):
        assert {k: v for k, v in by_name[same].items() if k not in ("ablation", "arm")} == default
    assert by_name["critic", "simulated 1"]["verdict_accuracy"] == 1
    spurious = prepared.verdicts()
    plain = prepared.aligned_by_verdicts(spurious, penalty_weight=0.0)
    right = predict(plain, prepared.test.images) == prepared.test.labels
    assert by_name["lambda", "0"]["accuracy"] == pytest.approx(right.double().mean().item())
    assert torch.equal(prepared.test.groups.bincount(), torch.full((4,), 20))


def test_changes_are_over_the_seeds_that_have_the_arm():
    rows = [{"seed": s, "arm": "before", "wga": 0.5, "aga": 0.6} for s in range(4)]
    rows += [{"seed": s, "arm": "lvlm-va", "wga": 0.5 + s / 10, "aga": 0.7 + s / 10} for s in (0, 1, 3)]
    rows += [
        {"seed": 2, "arm": "subg", "wga": 0.9, "aga": 0.9},
        {"seed": 0, "arm": "dfr", "failed": "empty"},
    ]
    arms = {name: name for name in ("lvlm-va", "subg", "dfr", "jtt")}
    found = group_arms.changes(pd.DataFrame(rows), arms).set_index(["arm", "measure"])
    assert set(found.index.get_level_values("arm")) == {"lvlm-va", "subg"}
    assert found.loc[("lvlm-va", "WGA"), "n"] == 3
    assert found.loc[("lvlm-va", "WGA"), "mean"] == pytest.approx(0.4 / 3)
    assert found.loc[("lvlm-va", "WGA"), "smallest p"] == 0.25
    assert found.loc[("subg", "AGA"), "mean"] == pytest.approx(0.3)
    assert math.isnan(found.loc[("subg", "AGA"), "p"])
    # A seed without "before" is no pair.
    alone = pd.DataFrame([row for row in rows if row["arm"] != "before" or row["seed"] != 3])
    assert group_arms.changes(alone, arms).set_index(["arm", "measure"]).loc[("lvlm-va", "WGA"), "n"] == 2
