"""Twins of moles by patches put in, and what is told beside them, on drawn files and by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn

from lvlmva_lite.datasets import load_skin
from lvlmva_lite.experiments import frozen_arms, frozen_masks, frozen_skin
from lvlmva_lite.experiments.frozen_arms import Frozen, frozen_rows
from lvlmva_lite.experiments.frozen_heads import Head, dro_head
from lvlmva_lite.experiments.frozen_masks import Masks
from lvlmva_lite.experiments.frozen_skin import Moles, lesions, skin_twins, true_masks
from lvlmva_lite.experiments.twin_readouts import folds
from lvlmva_lite.models import Classifier

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "isic"
SIDE, N = 16, 120
BLUE = (40, 90, 230)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Moles of two classes; a third of the benign have a blue patch at the left edge, ten of these a drawn mask."""
    folder = tmp_path_factory.mktemp("moles")
    (folder / "images").mkdir()
    (folder / "patch_masks").mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,label,split,coloured_patch"]
    for i in range(N):
        malignant, patch = i % 2 == 1, i % 6 == 0
        coarse = (rng.integers(130, 230, (8, 8, 1)) * [1, 0.85, 0.8]).astype(np.uint8)
        image = coarse.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
        image[12:20, 12:20] = rng.integers(40, 80) + (40 if malignant else 0)
        name = f"ISIC_{1000 + i:07d}"
        if patch:
            place = np.zeros((2 * SIDE, 2 * SIDE), np.uint8)
            place[4:24, :8] = 255
            image[place > 0] = BLUE
            if i < 60:
                Image.fromarray(place).save(folder / "patch_masks" / f"{name}.png")
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        split = ("train", "train", "train", "val", "test")[(i // 6) % 5]
        lines.append(f"images/{name}.png,{'malignant' if malignant else 'benign'},{split},{int(patch)}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.fixture(scope="module")
def both(root):
    return skin_twins(root, 0, SIDE)


def test_twins_differ_under_the_patch_alone(both):
    assert len(both.bare) == N
    assert torch.equal(both.twinned, ~both.shows)
    differ = (both.bare != both.marked).any(1)
    assert torch.equal(differ & both.masks, differ)
    assert differ.flatten(1).any(1)[both.twinned].all()
    assert not differ[both.shows].any()
    assert set(both.labels[both.shows].tolist()) == {0}
    blue = torch.tensor(BLUE)[:, None] / 255
    for i in both.twinned.nonzero()[:, 0].tolist():
        torch.testing.assert_close(
            both.marked[i][:, both.masks[i]], blue.expand(3, int(both.masks[i].sum())), atol=0.01, rtol=0
        )
        # Skin is put into the very same place.
        edged = (both.edged[i] != both.bare[i]).any(0)
        assert torch.equal(edged & both.masks[i], edged)
        assert edged.any()
        assert both.edged[i].min(0).values[edged].min() > 0.1, "skin is not blue"
    # What is trained on is the images as they are.
    whole = both.dataset(torch.arange(N))
    assert torch.equal(whole.images, both.bare)
    assert torch.equal(whole.spurious_masks.flatten(1).any(1), both.shows)
    assert set(both.groups.tolist()) == {0, 1, 2}
    assert int(both.donors.sum()) == 10


def test_a_patch_comes_from_the_fold_that_it_is_put_into(root, monkeypatch):
    """Each donor's patch has a colour of its own, by which it is known again."""

    def coloured(folder, name, size):
        number = int("".join(c for c in Path(name).stem if c.isdigit())) - 1000
        return frozen_skin.Layer(
            np.pad(np.ones((4, 4), np.float32), (0, size - 4)),
            np.full((size, size, 3), number / 1000, np.float32),
        )

    monkeypatch.setattr(frozen_skin, "_patch", coloured)
    both = skin_twins(root, 1, SIDE)
    parts = [
        load_skin(root, split, size=SIDE, paste_rate=(0.0, 0.0))
        for split in ("train", "validation", "test")
    ]
    names = [name for part in parts for name in part.names]
    place = {int(Path(name).stem[5:]) - 1000: i for i, name in enumerate(names)}
    seen = set()
    for held in folds(both.strata, both.patients, 1):
        assert both.donors[held].sum() == 2  # donors are spread evenly
        for i in both.with_twin(torch.from_numpy(held)).tolist():
            donor = place[round(both.marked[i, 0][both.masks[i]].mean().item() * 1000)]
            assert donor in held
            seen.add(donor)
    assert seen == set(both.donors.nonzero()[:, 0].tolist())


def test_a_fold_without_a_patch_to_cut_out_is_named(root, monkeypatch):
    monkeypatch.setattr(frozen_skin.SkinTwins, "strata", property(lambda self: self.labels))
    monkeypatch.setattr(frozen_skin, "folds", lambda strata, patients, repeat: [np.array([1])])
    with pytest.raises(ValueError, match=r"a fold of repeat 0 has no image with a drawn mask .* of 10 in"):
        skin_twins(root, 0, SIDE)


def test_images_that_look_alike_are_one_lesion():
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images[4] = images[1]
    images[5] = (0.5 * images[2] + 0.2).clamp(0, 1)  # darker, and of less contrast
    told = lesions(images)
    assert told[4] == told[1]
    assert told[5] == told[2]
    assert len(set(told)) == 4


def test_a_mask_by_colour_is_taken_only_where_nobody_looked(root):
    train = load_skin(root, "train", size=SIDE, paste_rate=(0.0, 0.0))
    # None of these images is in the file of objects that were marked by eye.
    assert torch.equal(true_masks(train), train.spurious_masks)


@pytest.fixture
def moles(monkeypatch):
    """Images that are their own features."""
    monkeypatch.setattr(
        frozen_arms,
        "efficientnet_lite0",
        lambda shape, n: Classifier(nn.Flatten(), nn.Linear(3 * SIDE**2, n)),
    )


def test_effects_are_those_of_a_head_that_sees_red_alone(moles, root):
    """A head whose score for malignant is the image's sum of red: what it says is known by hand."""
    fold = Frozen(Moles(), root, 0, SIDE)
    weight = torch.zeros(3, SIDE, SIDE, dtype=torch.float64)
    weight[0] = 1.0  # red speaks for malignant, and patches hold little of it
    head = Head((weight.flatten() * fold.std), torch.tensor(0.0, dtype=torch.float64))
    offset = head.scores(-fold.mean / fold.std)
    head = Head(head.weight, -offset)  # of raw pixels: the sum of red
    told, both = fold.further(head), fold.twins
    red = -both.bare[:, 0].flatten(1).double().sum(1)
    red_marked = -both.marked[:, 0].flatten(1).double().sum(1)
    bare = fold.tested[both.twinned[fold.tested]]
    own = fold.tested[both.shows[fold.tested]]
    benign = bare[both.labels[bare] == 0]
    spread = red[bare].std()
    for name, by_hand in {
        "inserted": (red_marked - red)[benign].mean(),
        "natural": red[own].mean() - red[benign].mean(),
    }.items():
        assert told[f"{name}_effect"] == pytest.approx((by_hand / spread).item(), rel=1e-4), name
    # Patches of one size and colour do the same, whoever put them in; filled from skin, they are gone.
    assert told["natural_effect"] == pytest.approx(told["inserted_effect"], rel=0.3)
    assert told["natural_filled_effect"] == pytest.approx(told["natural_effect"], rel=0.1)
    assert told["inserted_filled_effect"] == pytest.approx(told["inserted_effect"], rel=0.1)
    assert abs(told["camera_effect"]) < 0.3 * told["natural_effect"]
    assert abs(told["edge_effect"]) < 0.2 * told["inserted_effect"]
    expected = roc_auc_score((both.labels[bare] == 0).numpy(), red[bare].numpy())
    assert told["bare_auc"] == pytest.approx(expected)
    # A head that calls everything benign is right about all patches and wrong about every melanoma.
    all_benign = Head(torch.zeros_like(head.weight), torch.tensor(-1.0, dtype=torch.float64))
    told = fold.further(all_benign)
    assert (told["natural_accuracy"], told["wga_natural"]) == (1, 0)
    assert told["aga_natural"] == pytest.approx(2 / 3)


def test_objects_are_told_apart(moles, root, monkeypatch):
    """Foreign objects on half of the images: those twins alone are in each readout."""
    objects = (torch.arange(N) // 2) % 2 == 0
    original = frozen_skin.skin_twins
    monkeypatch.setattr(
        frozen_skin, "skin_twins", lambda *about: frozen_skin.replace(original(*about), objects=objects)
    )
    fold = Frozen(Moles(), root, 0, SIDE)
    told, _ = fold.further(fold.train.before), fold.measure(fold.train.before, "none", "before")
    for name, shown in (("objects", True), ("no_objects", False)):
        some = fold.test[objects[fold.test] == shown]
        auc = frozen_arms.conflict_auc(
            *(-one for one in fold.twin_scores(fold.train.before, some)[:2]), fold.twins.labels[some] == 0
        )
        assert told[f"conflict_auc_{name}"] == auc
        assert fold.rows[0][f"conflict_auc_{name}"] == auc


def test_every_arm_of_three_groups(moles, root, monkeypatch):
    monkeypatch.setattr(frozen_arms, "AMOUNTS", (20,))
    monkeypatch.setattr(frozen_arms, "N_DIRECTIONS", 1)

    def sources(fold):
        where = fold.train.where
        true = fold.twins.dataset(where).spurious_masks
        shifted = true.roll(8, 2)
        return {
            name: Masks(where, masks, "placebo")
            for name, masks in {"true": true, "lexicon": true, "placebo": shifted}.items()
        }

    monkeypatch.setattr(frozen_arms, "_sources", sources)
    told = pd.DataFrame(frozen_rows(Moles(), root, 0, size=SIDE))
    arms = set(told["penalty"])
    assert {"SUBG", "DFR", "GroupDRO", "JTT", "never saw it", "finite-difference", "rrr"} <= arms
    of = told[told["chosen"] & told["curve"].ne(True)].set_index(["masks", "penalty"])
    assert of.loc[("none", "never saw it"), "letter_effect"] < of.loc[("none", "before"), "letter_effect"]
    assert of.loc[("true", "finite-difference"), "letters_covered"] == 1
    assert (
        of.loc[("true", "finite-difference"), "inserted_effect"]
        < of.loc[("none", "before"), "inserted_effect"]
    )
    assert told["wga_natural"].notna().all()


def test_the_worst_of_the_groups_that_there_are():
    """Group 3 has no image: the head is that of the same groups by other numbers."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    groups = torch.arange(60) % 3
    labels = (groups == 2).long()
    head = dro_head(features, labels, groups, 0.1)
    again = dro_head(features, labels, groups + (groups == 2).long(), 0.1)
    assert head.converged
    torch.testing.assert_close(head.weight, again.weight)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real moles in ../shared")
def test_a_fold_of_real_moles(monkeypatch):
    """Few images, small ones: what stands in the rows, and that nothing of the tested fold is trained on."""
    monkeypatch.setattr(frozen_masks, "N_ALIGN", 60)
    monkeypatch.setattr(frozen_arms, "AMOUNTS", (30,))
    monkeypatch.setattr(frozen_arms, "N_DIRECTIONS", 1)
    original = Frozen.penalties

    def penalties(fold, where, masks):
        assert not set(fold.twins.patients[where]) & set(fold.twins.patients[fold.tested])
        return original(fold, where, masks)

    monkeypatch.setattr(Frozen, "penalties", penalties)
    rows = frozen_rows(Moles(), str(REAL), 6, size=32)  # the second repeat: recorded cases as in the first
    sources = {(row["masks"], row["penalty"]) for row in rows}
    assert {
        ("claude", "rrr"),
        ("claude-lexicon", "finite-difference"),
        ("claude-placebo", "rrr"),
    } <= sources
    told = {row["masks"]: row for row in rows if row.get("curve") is False}
    assert told["true"]["letters_covered"] == 1
    assert told["claude"]["n_align"] == told["claude-placebo"]["n_align"]
