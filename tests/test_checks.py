"""The checks of a reader's own functions."""

import doctest
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score
from sklearn.mixture import GaussianMixture
from torch import nn

from lvlmva_lite import checks
from lvlmva_lite.checks import check
from lvlmva_lite.em_by_hand import em_step
from lvlmva_lite.exercises import EXERCISES

CHAPTERS = Path(__file__).resolve().parent.parent / "notebooks"


@pytest.mark.parametrize("name", EXERCISES)
def test_the_right_function_passes_and_each_usual_slip_is_told_apart(name):
    assert check(name, EXERCISES[name].right).passed
    for words, slip in EXERCISES[name].slips:
        found = check(name, slip)
        assert not found.passed
        assert repr(found).startswith(f"{name}: not yet. {words} (")


# Written here from the formulas, and not with the package's functions.
BY_HAND = {
    "entropy": lambda p: torch.distributions.Categorical(p).entropy(),
    "mu_align": lambda a, m: float(np.mean([1 - x[k].abs().sum() / x.abs().sum() for x, k in zip(a, m, strict=True)])),
    "positive_effect": lambda a: np.stack([x.clip(0) / x.clip(0).sum() for x in a.numpy()]),
    "vote": lambda rows: tuple(
        next((k for k in set(kinds) if kinds.count(k) > len(kinds) / 2), "undecided")
        for kinds in zip(*rows, strict=True)
    ),
    "correction_masks": lambda s, r: sum((s == j) & r[:, j, None, None] for j in range(r.shape[1])) > 0,
    "share_of_gain": lambda a, m, u: (sum(a) - sum(u)) / (sum(m) - sum(u)),
    "to_lab": lambda c: lab_from_the_standard(c),
    "class_order": lambda p, y: max(
        (torch.tensor(order) for order in itertools.permutations(range(3))), key=lambda order: (order[p] == y).sum()
    ),
    "leaning": lambda k, s, y: np.array([
        [sum(s[i][k[i] == kind].sum() for i in range(len(y)) if y[i] == c) / y.tolist().count(c) for kind in range(4)]
        for c in range(3)
    ]),
    "sensitivity_and_specificity": lambda called, spurious: tuple(
        recall_score(truth, said, pos_label=positive)
        for truth, said in [zip(*[
            (bool(t), kind == "spurious") for kind, t in zip(called, spurious, strict=True) if kind != "undecided"
        ], strict=True)]
        for positive in (True, False)
    ),
    "fleiss_kappa": lambda r: kappa_from_the_paper(np.stack([(r == k).sum(0) for k in range(3)], 1)),
}  # fmt: skip


def lab_from_the_standard(colours):
    """CIE 1976 from IEC 61966-2-1, white D65 of 2 degrees, colour by colour."""

    def f(t):
        return t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116

    matrix = [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
    found = np.empty_like(colours)
    for place in np.ndindex(colours.shape[:-1]):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colours[place]]
        xyz = [sum(a * b for a, b in zip(row, linear, strict=True)) for row in matrix]
        x, y, z = (f(value / white) for value, white in zip(xyz, (0.95047, 1, 1.08883), strict=True))
        found[place] = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    return found


def kappa_from_the_paper(table):
    """Fleiss 1971, of counts (items, kinds), in his letters."""
    n_subjects, n = len(table), table[0].sum()
    p = table.sum(0) / (n_subjects * n)
    observed = sum((row**2).sum() - n for row in table) / (n_subjects * n * (n - 1))
    return (observed - (p**2).sum()) / (1 - (p**2).sum())


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("seed", [0, 7])
def test_functions_from_the_formulas_pass(name, seed):
    assert check(name, BY_HAND[name], random_state=seed).passed, check(
        name, BY_HAND[name], random_state=seed
    )


def test_the_em_step_is_scikit_learns_where_masses_are_whole_numbers():
    generator = np.random.default_rng(0)
    z, counts = generator.random((20, 2)), generator.integers(1, 5, 20)
    means, covariances = generator.random((2, 2)), np.stack([np.eye(2) / 10] * 2)
    peer = GaussianMixture(
        2, max_iter=1, reg_covar=1e-3, weights_init=[0.5, 0.5], means_init=means,
        precisions_init=np.linalg.inv(covariances),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="did not converge"):
        peer.fit(np.repeat(z, counts, axis=0))
    ours = em_step(z, counts / counts.sum(), np.full(2, 0.5), means, covariances, 1e-3 * np.eye(2))
    for a, b in zip(ours, (peer.weights_, peer.means_, peer.covariances_), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "function", "told"),
    [
        ("entropy", lambda p: -(p * p.log()).sum(1), "nan where there is a value"),
        ("entropy", lambda p: torch.special.entr(p).sum(0), r"the shape \(4,\), and \(6,\) is wanted"),
        ("entropy", lambda p: torch.special.entr(p).mean(1), "0.25 times what is wanted"),
        ("entropy", lambda p, q: p, "takes probabilities .* raised TypeError"),
        ("entropy", lambda p: None, "not written yet. It takes probabilities"),
        ("entropy", lambda p: object(), "It gives object, which holds no numbers"),
        ("entropy", lambda p: torch.special.entr(p.div_(1).add_(0)).sum(1) + 0 * p.zero_().sum(), "changes what it is given"),
        ("em_step", lambda *given: em_step(*given)[:2], "2 values, and 3 are wanted"),
        ("rrr_penalty", lambda *given: EXERCISES["rrr_penalty"].right(*given).detach(), "create_graph=True"),
        ("vote", lambda rows: tuple("relevant" for _ in rows[0]), "It says relevant where"),
    ],
)  # fmt: skip
def test_what_else_is_wrong_is_said(name, function, told):
    found = check(name, function)
    assert not found.passed
    assert re.search(told, repr(found)), found


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(
        ValueError, match=r"no check 'entropie'; there are sensitivity_and_specificity, mu_align, entropy"
    ):
        check("entropie", nn.Identity())


def test_each_check_stands_in_its_chapter_and_the_examples_run():
    for name, exercise in EXERCISES.items():
        (file,) = CHAPTERS.glob(f"{exercise.chapter:02d}_*.md")
        assert f'checks.check("{name}", ' in file.read_text(), (
            f"{file.name} does not offer the check {name}"
        )
    for file in CHAPTERS.glob("*.md"):
        for name in re.findall(r'checks\.check\("(\w+)"', file.read_text()):
            assert f"{EXERCISES[name].chapter:02d}" == file.name[:2]
    assert not doctest.testmod(checks).failed
