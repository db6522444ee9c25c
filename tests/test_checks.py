"""The checks of a reader's own functions."""

import doctest
import itertools
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy
import torch
from captum.attr import DeepLiftShap, InputXGradient, ShapleyValues
from scipy.optimize import brentq
from scipy.signal import correlate2d
from scipy.spatial.distance import mahalanobis
from sklearn.linear_model import LinearRegression
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from lvlmva_lite import checks
from lvlmva_lite.checks import check
from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.em_by_hand import em_step
from lvlmva_lite.exercises import EXERCISES
from lvlmva_lite.segment_choice import choose_n_segments
from lvlmva_lite.segmentation import positive_effect, ppeps_wgm

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
    "runner_up": lambda p, y: [
        max((k for k in range(len(row)) if k != label), key=row.__getitem__)
        for row, label in zip(p.tolist(), y.tolist(), strict=True)
    ],
    "truly_spurious": lambda s, n, a, m: np.array([
        [2 * sum(a[i][(s[i] == j) & m[i] & (a[i] > 0)]) > sum(a[i][(s[i] == j) & (a[i] > 0)]) for j in range(n)]
        for i in range(len(s))
    ]),
    "decoys": lambda d, y, c: decoys_pixel_by_pixel(d, y, c),
    "first_step": lambda x, y, k: torch.stack([
        sum(((label == c).double() - 1 / k) * row for row, label in zip(x, y, strict=True)) / len(x) for c in range(k)
    ]),
    "motion": lambda f, y, w: torch.func.grad(lambda w: torch.nn.functional.logsigmoid(y * (f @ w)).mean())(w),
    "worst_and_average_group": lambda p, y, g, n: (lambda rates: (min(rates), sum(rates) / len(rates)))([
        sum(a == b for a, b, c in zip(p, y, g, strict=True) if c == k).item() / (g == k).sum().item()
        for k in range(n) if k in g
    ]),
    "surest_of_each_class": lambda p, y, m: [
        sum(torch.special.entr(q).sum() < torch.special.entr(p[i]).sum() for q in p[y == y[i]]) < m for i in range(len(p))
    ],
    "slope_and_share": lambda v, m: (np.polyfit(m.numpy(), v.numpy(), 1)[0], float(sum(v) / sum(m))),
    "evidence_share": lambda a, m: float(np.mean([
        x[k & (x > 0)].sum() / x[x > 0].sum() for x, k in zip(a.numpy(), m.numpy(), strict=True)
    ])),
    "enrichment_curve": lambda s, a: [
        sum(amount for _, amount in sorted(zip(s.tolist(), a.tolist(), strict=True))[:k]) / a.sum().item()
        for k in range(len(s) + 1)
    ],
    "gradient_times_input": lambda m, x, t: InputXGradient(m).attribute(x.requires_grad_(), target=t),
    "secant": lambda z, z_r: [
        (max(a, 0) - max(b, 0)) / (a - b) if a != b else float(a > 0) for a, b in zip(z.tolist(), z_r.tolist(), strict=True)
    ],
    "shapley": lambda worth: ShapleyValues(lambda s: worth[tuple(s.long().T)]).attribute(torch.ones(1, 3))[0],
    "deeplift_shap": lambda m, x, t, b: DeepLiftShap(m).attribute(x, b, target=t)[:, 0].detach(),
    "completeness_error": lambda a, f, r: [
        abs(math.fsum(x.flatten().tolist()) - (y - math.fsum(r.tolist()) / len(r)))
        for x, y in zip(a, f.tolist(), strict=True)
    ],
    "contrast": lambda m, x, t, r, b: (
        DeepLiftShap(m).attribute(x, b, target=t) - DeepLiftShap(m).attribute(x, b, target=r)
    )[:, 0].detach(),
    "responsibilities": lambda joint: np.array([
        [1 / sum(math.exp(other - one) for other in row) for one in row] for row in joint
    ]),
    "em_objective": lambda p, joint: sum(
        mass * math.log(sum(map(math.exp, row))) for mass, row in zip(p, joint, strict=True)
    ),
    "bic": lambda p, fit, j: (
        -2 * fit * sum(p) ** 2 / sum(p**2) + (2 * j + 3 * j + (j - 1)) * math.log(sum(p) ** 2 / sum(p**2))
    ),
    "as_data": lambda text: text.translate({ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}),
    "strict_rulings": lambda answers, names: [
        tuple(dict(pairs)[name] for name in names)
        if Counter(name for name, _ in pairs) == Counter(names)
        and {kind for _, kind in pairs} <= {"relevant", "spurious", "background", "undecided"}
        else "refused"
        for pairs in answers
    ],
    "cohen_kappa": cohen_kappa_score,
    "near_evidence": lambda s, e, share: np.array([
        [[c >= 0 and e[i][y, x] >= share * max(e[i][s[i] == c]) for x, c in enumerate(row)] for y, row in enumerate(s[i])]
        for i in range(len(s))
    ]),
    "summed_gradient": lambda s, z: torch.stack([
        torch.func.grad(lambda x, a=a, b=b: (b + a @ x).log_softmax(0).sum())(torch.zeros(a.shape[1]).double())
        for a, b in zip(s, z, strict=True)
    ]),
    "jacobian_penalty": lambda m, x, a: sum(
        (slopes - slopes.mean(0)).mul(mask).square().sum()
        for one, mask in zip(x, a, strict=True)
        for slopes in [torch.autograd.functional.jacobian(lambda x: m(x[None])[0], one, create_graph=True)]
    ),
    "finite_difference": lambda m, x, f: (m(x) - m(f)).var(1, correction=0).sum() * 3,
    "two_weights": lambda x, w: two_weights_from_the_formula(x, w),
    "rrr_penalty": lambda m, x, a: sum(
        slope[mask[None]].square().sum()
        for one, mask in zip(x, a, strict=True)
        for slope in [torch.autograd.functional.jacobian(lambda x: m(x[None]).log_softmax(1).sum(), one, create_graph=True)]
    ),
    "lambda_in_other_units": lambda lam, scale, side: lam * (scale / side) ** 2,
    "loss_in_nats": lambda c, lam, p, p_0: c + lam * np.mean(p.numpy()) / np.mean(p_0.numpy()),
    "entropy": lambda p: torch.distributions.Categorical(p).entropy(),
    "mu_align": lambda a, m: float(np.mean([1 - x[k].abs().sum() / x.abs().sum() for x, k in zip(a, m, strict=True)])),
    "positive_effect": lambda a: np.stack([x.clip(0) / x.clip(0).sum() for x in a.numpy()]),
    "vote": lambda rows: tuple(
        next((k for k in set(kinds) if kinds.count(k) > len(kinds) / 2), "undecided")
        for kinds in zip(*rows, strict=True)
    ),
    "correction_masks": lambda s, r: sum((s == j) & r[:, j, None, None] for j in range(r.shape[1])) > 0,
    "above_even_share": lambda a, m: float(np.mean([
        abs(x[k]).sum() / k.sum() > abs(x).mean() for x, k in zip(a.numpy(), m.numpy(), strict=True)
    ])),
    "neighbour_purity": lambda x, y, k: float(np.mean([
        (y[np.argsort([math.dist(a, b) for b in x])[1 : k + 1]] == label).double().mean() for a, label in zip(x, y, strict=True)
    ])),
    "mean_interval": lambda v: (
        v.mean(), *scipy.stats.t.interval(0.95, len(v) - 1, v.mean(), scipy.stats.sem(v)),
    ),
    "signed_rank_p": lambda d: scipy.stats.wilcoxon(d, alternative="greater", method="exact").pvalue,
    "follows_the_square": lambda a, y, s: float(np.mean([
        i == k for i, j, k in zip(a.tolist(), y.tolist(), s.tolist(), strict=True) if i != j != k
    ])),
    "widest_gap": lambda t, a: max(
        ((t[i], (b + c) / 2, (one + d) / 2) for i, (one, b, c, d) in enumerate(a)), key=lambda row: row[1] - row[2]
    ),
    "inside_ellipse": lambda z, m, c, d: np.array([
        mahalanobis(x, m, np.linalg.inv(c)) <= d**0.5 for x in z.numpy()
    ]),
    "two_class_penalty": lambda p, s, m: sum(
        float((1 - 2 * q) ** 2 * (x[k] ** 2).sum()) for q, x, k in zip(p, s, m, strict=True)
    ),
    "paired_interval": lambda s, a, t, b: (
        a.mean() - b.mean(),
        *scipy.stats.ttest_rel([a[s == k][0] for k in range(7)], [b[t == k][0] for k in range(7)]).confidence_interval(),
    ),
    "greyed_patch": lambda x, m: np.stack([
        np.where(k, (one[0] + one[1] + one[2]) / 3, one) for one, k in zip(x.numpy(), m.numpy(), strict=True)
    ]),
    "share_of_gain": lambda a, m, u: (sum(a) - sum(u)) / (sum(m) - sum(u)),
    "to_lab": lambda c: lab_from_the_standard(c),
    "region_overlap": lambda r, t: float(np.mean([
        jaccard_score(b.flatten(), a.flatten()) for a, b in zip(r, t, strict=True)
    ])),
    "patch_and_look": lambda b: tuple(
        float(np.mean([int(one[at]) - int(one[0, 0]) for one in b.numpy()])) for at in ((1, 0), (0, 1))
    ),
    "by_letter_alone": lambda y, t: DecisionTreeClassifier().fit(t[:, None], y).score(t[:, None], y),
    "group_weights": lambda g: compute_sample_weight("balanced", g),
    "proximal_step": lambda *given: proximal_by_autograd(*given),
    "jtt_share": lambda a, y, u: np.repeat((a != y).numpy(), np.where(a != y, u, 1)).mean(),
    "pattern_direction": lambda h, y, t: normalize(
        LinearRegression().fit(torch.stack([t, y], 1), h).coef_[:, :1].T
    )[0],
    "cdep_layer": lambda b, c, w, bias: tuple(np.moveaxis(np.array([
        [shared_by_size(one @ row, other @ row, extra) for row, extra in zip(w.numpy(), bias.numpy(), strict=True)]
        for one, other in zip(b.numpy(), c.numpy(), strict=True)
    ]), 2, 0)),
    "exact_p": lambda a, b: p_by_counting([round(1e4 * i) - round(1e4 * j) for i, j in zip(a, b, strict=True)]),
    "least_overlap": lambda m: round(correlate2d(m.double(), m.double(), boundary="wrap").min()),
    "precision": lambda q, pi: 1 / (1 + (1 - q) / q * (1 - pi) / pi),
    "brightness_there": lambda m, c, s: (lambda k: (
        m[2] - (s - m[:2]) @ k[:2, 2] / k[2, 2], 1 / k[2, 2]
    ))(np.linalg.inv(c)),
    "rescaled": lambda m, c, r: (
        np.stack([m[:, 0], m[:, 1], r * m[:, 2]], 1), c * [[1, 1, r], [1, 1, r], [r, r, r * r]]
    ),
    "fill_distance": lambda d: brentq(
        lambda x: math.erf(math.sqrt(x / 2)) - math.sqrt(2 * x / math.pi) * math.exp(-x / 2) - 1 + math.exp(-d / 2), 0, 99,
    ),
    "letter_masks": lambda m, a, k: tuple(np.mean([
        [precision_score(~a[i].flatten(), m[i].flatten()),
         precision_score((k & ~a)[i].flatten(), m[i].flatten()),
         recall_score((k & ~a)[i].flatten(), m[i].flatten())]
        for i in range(len(m))
    ], 0)),
    "wrong_side": lambda d, t: np.array([math.erfc(x / math.sqrt(8) / y) / 2 for x, y in zip(d, t, strict=True)]),
    "masked_area": lambda m: (lambda areas: (len(areas) / len(m), sum(areas) / len(areas) / 36))(
        [int(one.sum()) for one in m if one.any()]
    ),
    "sticker_moves": lambda m, c: (m - c).abs().sum().item() / 2 / len(m),
    "class_order": lambda p, y: max(
        (torch.tensor(order) for order in itertools.permutations(range(3))), key=lambda order: (order[p] == y).sum()
    ),
    "normalised": lambda x, m, s: np.stack([(x[:, k] - m[k]) / s[k] for k in range(3)], 1),
    "evidence_in_corners": lambda a, c, j: (lambda held: held[:, c].sum() / held.sum())(
        np.maximum(a[~j].numpy(), 0)
    ),
    "leaning": lambda k, s, y: np.array([
        [sum(s[i][k[i] == kind].sum() for i in range(len(y)) if y[i] == c) / y.tolist().count(c) for kind in range(4)]
        for c in range(3)
    ]),
    "first_thing": lambda names, shares: (
        pd.Series(shares.flatten()).groupby(np.ravel(names)).sum().drop("", errors="ignore").idxmax()
    ),
    "answers_that_hang": lambda a, t, e: accuracy_score(a, e) - accuracy_score(a, t),
    "class_losses": lambda b, a, y: (lambda lost: (lost.mean(), lost.max()))(
        recall_score(y, b, average=None) - recall_score(y, a, average=None)
    ),
    "sensitivity_and_specificity": lambda called, spurious: tuple(
        recall_score(truth, said, pos_label=positive)
        for truth, said in [zip(*[
            (bool(t), kind == "spurious") for kind, t in zip(called, spurious, strict=True) if kind != "undecided"
        ], strict=True)]
        for positive in (True, False)
    ),
    "fleiss_kappa": lambda r: kappa_from_the_paper(np.stack([(r == k).sum(0) for k in range(3)], 1)),
    "certainty": lambda k, p: np.array([
        [{"spurious": chance, "undecided": 0}.get(KINDS[kind], 1 - chance) for kind, chance in zip(*row, strict=True)]
        for row in zip(k.tolist(), p.tolist(), strict=True)
    ]),
    "queue": lambda c, p: np.array(sorted(
        ((i, j) for i in range(4) for j in range(5) if p[i, j]), key=lambda place: c[place]
    )),
    "silent_where_unsure": lambda p, sure: [
        next((kind for kind, chance in zip(KINDS, row, strict=False) if chance >= sure), "undecided") for row in p
    ],
    "twin_aucs": lambda b, m, y: tuple(
        roc_auc_score(y, torch.where(y == 1, of_ill, of_healthy)) for of_ill, of_healthy in ((m, b), (b, m))
    ),
    "corrected_interval": lambda v, k: scipy.stats.t.interval(
        0.95, len(v) - 1, np.mean(v), np.sqrt(np.var(v, ddof=1) * (1 / len(v) + 1 / (k - 1)))
    ),
    "letter_coverage": lambda m, a: (lambda shares: (np.mean(shares), np.mean(np.array(shares) > 0)))(
        [recall_score(a[i].flatten(), m[i].flatten()) for i in range(len(m)) if a[i].any()]
    ),
    "patch_and_rest": lambda own, filled, bare, y: np.diff([
        -np.mean(own.tolist()), -np.mean(filled.tolist()), -np.mean([s for s, c in zip(bare.tolist(), y, strict=True) if c == 0])
    ]) / np.std(bare.numpy(), ddof=1),
    "false_alarms": lambda kinds, *shares: tuple(
        sum(kind == "spurious" and share <= 0.5 for kind, share in zip(kinds, of, strict=True)) for of in shares
    ),
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


def decoys_pixel_by_pixel(digits, labels, corners):
    for digit, label, corner in zip(digits := digits.copy(), labels, corners, strict=True):
        for row, column in itertools.product(range(4), range(4)):
            digit[row + 24 * (corner > 1), column + 24 * (corner % 2)] = 255 - 25 * label
    return digits


def two_weights_from_the_formula(x, w):
    t, (core, shortcut) = np.tanh(x @ w / 2), x.T
    pull = t * (1 - t**2) * w[1] ** 2
    gradient = np.array([(pull * core).mean(), (2 * t**2 * w[1] + pull * shortcut).mean()])
    return (t**2).mean() * w[1] ** 2, gradient


def kappa_from_the_paper(table):
    """Fleiss 1971, of counts (items, kinds), in his letters."""
    n_subjects, n = len(table), table[0].sum()
    p = table.sum(0) / (n_subjects * n)
    observed = sum((row**2).sum() - n for row in table) / (n_subjects * n * (n - 1))
    return (observed - (p**2).sum()) / (1 - (p**2).sum())


def proximal_by_autograd(w, b, h, s, C, eta):
    """The slope of the smooth term by autograd, the L1 term's step by PyTorch's soft threshold."""
    w, b, h, s = (torch.tensor(one, dtype=torch.float64) for one in (w, b, h, s))
    w.requires_grad_(), b.requires_grad_()
    (C * nn.functional.softplus(-s * (h @ w + b)).sum()).backward()
    return nn.functional.softshrink(w - eta * w.grad, eta), b - eta * b.grad


def shared_by_size(one, other, bias):
    return one + bias * abs(one) / (abs(one) + abs(other)), other + bias * abs(other) / (
        abs(one) + abs(other)
    )


def p_by_counting(differences):
    """Of whole numbers, by all their signs; ranks count how many are smaller and how many alike."""
    sizes = [abs(d) for d in differences]
    ranks = [sum(a < b for a in sizes) + (sizes.count(b) + 1) / 2 if b else 0 for b in sizes]
    seen = abs(sum(rank * np.sign(d) for rank, d in zip(ranks, differences, strict=True)))
    sums = [abs(np.dot(signs, ranks)) for signs in itertools.product((-1, 1), repeat=len(ranks))]
    return np.mean([one >= seen for one in sums])


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


def test_bic_is_what_the_package_chooses_by():
    maps = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0)) - 0.4
    scores = choose_n_segments(maps, (2, 3)).scores
    for column, j in enumerate((2, 3)):
        likelihoods = ppeps_wgm(maps, j).log_likelihood / 36
        found = [
            EXERCISES["bic"].right(p.flatten().numpy(), fit.item(), j)
            for p, fit in zip(positive_effect(maps), likelihoods, strict=True)
        ]
        np.testing.assert_allclose(found, scores[:, column], rtol=1e-6)


def test_a_check_leaves_what_is_drawn_after_it_alone():
    drawn = []
    for name in (None, *EXERCISES):
        torch.manual_seed(0)
        if name:
            check(name, lambda *given: torch.rand(3))
        drawn.append(torch.rand(5))
    assert all(torch.equal(one, drawn[0]) for one in drawn)


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
        ("worst_and_average_group", lambda *given: [torch.tensor(2.0)] * 2, "not yet. Values differ by up to"),
    ],
)  # fmt: skip
def test_what_else_is_wrong_is_said(name, function, told):
    found = check(name, function)
    assert not found.passed
    assert re.search(told, repr(found)), found


def test_several_numbers_may_come_as_a_tuple_or_as_an_array():
    right = EXERCISES["mean_interval"].right
    for form in (list, np.array, torch.tensor, lambda one: tuple(map(torch.tensor, one))):
        assert check("mean_interval", lambda values, form=form: form(right(values))).passed
    assert "values, and" in repr(check("mean_interval", lambda values: [np.ones(2), 1.0, 2.0]))


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(
        ValueError,
        match=r"no check 'entropie'; there are (\w+, )*sensitivity_and_specificity, (\w+, )*entropy, ",
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


def of_a_check(name):
    """The docstring of the cell in which a chapter offers a check."""
    (file,) = CHAPTERS.glob(f"{EXERCISES[name].chapter:02d}_*.md")
    cells = re.findall(r"^def my_\w+\(.*?^```$", file.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (cell,) = [cell for cell in cells if f'checks.check("{name}", ' in cell]
    return re.search(r'"""(.*?)"""', cell, re.DOTALL)[1]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_docstring_says_whether_arrays_or_tensors_come_in(name):
    given = EXERCISES[name].draw(torch.Generator().manual_seed(0))
    says = of_a_check(name)
    for word, kind in (("array", np.ndarray), ("tensor", torch.Tensor)):
        assert bool(re.search(rf"\b{word}s?\b", says)) == any(isinstance(one, kind) for one in given), (
            f"{name}: {says}"
        )
