import numpy as np
import pytest
import torch

from lvlmva_lite import pipeline
from lvlmva_lite.datasets import knee_phantom
from lvlmva_lite.experiments import rounding_arms
from lvlmva_lite.experiments.tables import sweep
from lvlmva_lite.models import small_resnet
from lvlmva_lite.tasks import Knee

TINY = {
    "train_epochs": 1, "n_align": 10, "n_baselines": 2, "n_explained": 4,
    "align_epochs": 1, "batch_size": 32, "n_segments": 2,
}  # fmt: skip
KNEE = Knee(image_size=32)


def test_each_weight_moves_by_one_unit_in_the_last_place():
    plain, moved, same, other = (small_resnet((1, 32, 32), 2) for _ in range(4))
    for model, number in ((moved, 1), (same, 1), (other, 2)):
        rounding_arms.perturb(model, 0, number)
    up = 0
    for a, b, c, d in zip(*(m.parameters() for m in (plain, moved, same, other)), strict=True):
        a, b, c, d = (t.detach().numpy().ravel() for t in (a, b, c, d))
        lower, higher = np.nextafter(a, -np.inf, dtype=a.dtype), np.nextafter(a, np.inf, dtype=a.dtype)
        assert ((b == lower) | (b == higher)).all()
        assert (b == c).all()
        up += int((b == higher).sum())
        assert len(a) < 20 or 0.1 < (b == d).mean() < 0.9
    n = sum(p.numel() for p in plain.parameters())
    assert abs(up / n - 0.5) < 0.05


@pytest.fixture
def few_images(monkeypatch):
    drawn = []

    def load(task, split, *, seed, clean=False):
        drawn.append((split, clean))
        rate = (0.0, 0.0) if clean else None
        return knee_phantom(
            split, size=32, n=96 if split == "train" else 40, marker_rate=rate, random_state=seed
        )

    monkeypatch.setattr(Knee, "load", load)
    monkeypatch.setattr(Knee, "marked", lambda task, split, *, seed: None)
    return drawn


def tiny(seed):
    return rounding_arms.rounding_rows(KNEE, KNEE.config(seed=seed, **TINY), n_perturbations=2)


def test_a_row_for_each_perturbation_and_it_resumes_by_seed(few_images, tmp_path):
    table = sweep(tiny, (0, 1), tmp_path / "rounding.csv")
    assert table["perturbation"].tolist() == [0, 1, 2] * 2
    measures = ["wga_before", "aga_before", "wga_after", "aga_after"]
    assert table[measures].to_numpy().min() >= 0
    assert (table["wga_before"] <= table["aga_before"]).all()
    # The unperturbed row is what the seed gives anyway.
    ready = pipeline.prepare(KNEE, KNEE.config(seed=1, **TINY))
    alone = ready.score(ready.model)
    row = table[(table["seed"] == 1) & (table["perturbation"] == 0)].iloc[0]
    assert (row["wga_before"], row["aga_before"]) == pytest.approx((alone["wga"], alone["aga"]))
    few_images.clear()
    assert sweep(tiny, (0, 1), tmp_path / "rounding.csv").equals(table)
    assert not few_images


def test_other_settings_of_the_alignment_load_no_image_anew(few_images):
    ready = pipeline.prepare(KNEE, KNEE.config(**TINY))
    few_images.clear()
    changed = ready.changed(n_segments=3)
    assert not few_images
    anew = pipeline.prepare(KNEE, KNEE.config(**TINY | {"n_segments": 3}), model=ready.model)
    assert torch.equal(changed.alignment_set.segments.labels, anew.alignment_set.segments.labels)
    assert torch.equal(changed.alignment_set.attributions, anew.alignment_set.attributions)
    assert torch.equal(changed.test.images, anew.test.images)
    with pytest.raises(pipeline.ConfigError, match="another seed"):
        ready.changed(seed=1)
    with pytest.raises(pipeline.ConfigError, match="n_align must be at most 96"):
        ready.changed(n_align=97)
