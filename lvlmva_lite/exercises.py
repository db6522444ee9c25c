"""What a reader may write: the arguments that a check draws, the function to be, and the usual wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from skimage.color import rgb2lab
from torch import Generator, Tensor, nn

from lvlmva_lite.agreement import fleiss_kappa, mean_pairwise_agreement
from lvlmva_lite.alignment import correction_masks, rrr_penalty
from lvlmva_lite.attribution import deeplift_shap
from lvlmva_lite.critic.types import KINDS, Verdict
from lvlmva_lite.critic.verdicts import vote
from lvlmva_lite.em_by_hand import em_step
from lvlmva_lite.metrics import mu_align, share_of_gain, verdict_scores
from lvlmva_lite.report.leaning import judged_cases, leaning
from lvlmva_lite.sampling import enrichment_curve, entropy
from lvlmva_lite.segmentation import positive_effect


@dataclass(frozen=True)
class Exercise:
    """One function that a reader may write.

    Attributes
    ----------
    chapter : whose
    arguments : what the function takes, in words
    draw : a generator -> the arguments
    right : the function to be
    slips : the usual wrong ones, and what to say to each
    differentiable : the result must lead back to the weights
    """

    chapter: int
    arguments: str
    draw: Callable[[Generator], tuple]
    right: Callable[..., Any]
    slips: tuple[tuple[str, Callable[..., Any]], ...] = ()
    differentiable: bool = False


def _uniform(g: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=g, dtype=torch.float64)


def _maps(g: Generator) -> tuple[Tensor, Tensor]:
    return _uniform(g, 4, 6, 6) - 0.4, _uniform(g, 4, 6, 6) < 0.3


def _probabilities(g: Generator) -> tuple[Tensor]:
    p = _uniform(g, 6, 4)
    p[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    return (p / p.sum(1, keepdim=True),)


def _network(g: Generator) -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(_uniform(g, *weights.shape) - 0.5)
    return model, _uniform(g, 3, 1, 4, 4)


def _explained(g: Generator) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    model, images = _network(g)
    return model, images, torch.tensor([0, 1, 2]), _uniform(g, 5, 1, 4, 4)


def _gradient_times(model: nn.Module, images: Tensor, targets: Tensor, change: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)
    return (slope * change).sum(1).detach()


def _mixture(g: Generator) -> tuple[np.ndarray, ...]:
    z, p = _uniform(g, 30, 2).numpy(), _uniform(g, 30).numpy()
    shares = _uniform(g, 3).numpy() + 0.2
    means = _uniform(g, 3, 2).numpy()
    return z, p / p.sum(), shares / shares.sum(), means, np.stack([np.eye(2) / 20] * 3), np.eye(2) / 1200


def _votes(g: Generator) -> tuple[list[tuple[str, ...]]]:
    said = torch.randint(3, (5, 8), generator=g)
    return ([tuple(KINDS[k] for k in row) for row in said.tolist()],)


def _majority(answers: list[tuple[str, ...]]) -> tuple[str, ...]:
    return vote([Verdict("case", "judge", kinds) for kinds in answers]).kinds


def _plurality(answers: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(max(sorted(set(kinds)), key=kinds.count) for kinds in zip(*answers, strict=True))


def _penalised(g: Generator) -> tuple[nn.Module, Tensor, Tensor]:
    model, images = _network(g)
    return model, images, _uniform(g, 3, 4, 4) < 0.5


def _penalty_of(
    model: nn.Module, images: Tensor, masks: Tensor, output: Callable, size: Callable
) -> Tensor:
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(output(model(images)).sum(), images, create_graph=True)
    return size(masks[:, None] * slope).sum()


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(1)


def _verdicts(g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randint(-1, 3, (4, 5, 5), generator=g), torch.rand(4, 3, generator=g) < 0.5


def _arms(g: Generator) -> tuple[list[float], list[float], list[float]]:
    untreated = _uniform(g, 7) * 0.1 + 0.4
    method = untreated + 0.3 + 0.05 * _uniform(g, 7)
    return (untreated + 0.1 * _uniform(g, 7)).tolist(), method.tolist(), untreated.tolist()


def _called(g: Generator) -> tuple[list[str], Tensor]:
    said = torch.randint(len(KINDS), (40,), generator=g)
    spurious = torch.rand(40, generator=g) < 0.3
    spurious[:2] = torch.tensor([True, False])  # some of either, and decided
    said[:2] = 0
    return [KINDS[k] for k in said.tolist()], spurious


def _rates(called: list[str], spurious: Tensor) -> tuple[float, float]:
    found = verdict_scores(torch.tensor([KINDS.index(kind) for kind in called]), spurious.long())
    return found["sensitivity"], found["specificity"]


def _rates_of_all(called: list[str], spurious: Tensor) -> tuple[float, float]:
    said, cleared = (
        torch.tensor([kind in kinds for kind in called]) for kinds in (KINDS[1:2], KINDS[:1] + KINDS[2:3])
    )
    return said[spurious].double().mean().item(), cleared[~spurious].double().mean().item()


def _predictive_values(called: list[str], spurious: Tensor) -> tuple[float, float]:
    decided = torch.tensor([kind != "undecided" for kind in called])
    said = torch.tensor([kind == "spurious" for kind in called])
    return (
        spurious[said].double().mean().item(),
        (~spurious)[decided & ~said].double().mean().item(),
    )


def _colours(g: Generator) -> tuple[np.ndarray]:
    return ((_uniform(g, 5, 6, 3) ** 3).numpy(),)  # cubed: some so dark that the curve is a line there


def _answers(g: Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(3, (60,), generator=g)
    turned = torch.randperm(3, generator=g)
    wrong = torch.rand(60, generator=g) < 0.2
    return torch.where(wrong, torch.randint(3, (60,), generator=g), turned[labels]), labels


def class_order(predicted: Tensor, labels: Tensor) -> Tensor:
    """The class of each output under which most answers are right, one output to a class.

    Parameters
    ----------
    predicted : (n,) int64, the output that is largest
    labels : (n,) int64, in 0 .. the largest label; as many outputs as classes

    Returns
    -------
    (K,) int64
    """
    k = int(labels.max()) + 1
    counts = torch.bincount(predicted * k + labels, minlength=k * k).view(k, k)
    return torch.from_numpy(linear_sum_assignment(counts.numpy(), maximize=True)[1])


def _judged(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    shares = _uniform(g, 12, 4)
    labels = torch.cat([torch.arange(3), torch.randint(3, (9,), generator=g)])
    return torch.randint(len(KINDS), (12, 4), generator=g), shares / shares.sum(1, keepdim=True), labels


def _leaning(kinds: Tensor, shares: Tensor, labels: Tensor) -> np.ndarray:
    names = [str(label) for label in labels.tolist()]
    cases = judged_cases(
        [str(i) for i in range(len(names))], names,
        [[KINDS[k] for k in row] for row in kinds.tolist()], shares.tolist(), (),
    )  # fmt: skip
    return leaning(cases, "", sorted(set(names))).by_class[list(KINDS)].to_numpy()


def _leaning_by(kinds: Tensor, shares: Tensor, labels: Tensor, *, counted: bool, among: Callable) -> Tensor:
    weights = torch.ones_like(shares) / shares.shape[1] if counted else shares
    rows = [
        [(weights * (kinds == k))[labels == c].sum() / among(labels == c) for k in range(len(KINDS))]
        for c in range(int(labels.max()) + 1)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _ratings(g: Generator) -> tuple[np.ndarray]:
    own, common = (torch.randint(3, shape, generator=g) for shape in ((5, 30), (30,)))
    return (torch.where(torch.rand(5, 30, generator=g) < 0.5, common, own).numpy(),)


def _kappa(ratings: np.ndarray, by_chance: float) -> float:
    return (mean_pairwise_agreement(ratings) - by_chance) / (1 - by_chance)


EXERCISES = {
    "sensitivity_and_specificity": Exercise(
        0, "called, a list of n kinds, and spurious (n,) bool, the truth", _called, _rates,
        (
            ("It is what a verdict is worth, given the verdict: go by the truth.", _predictive_values),
            ("An undecided segment counts as wrong: leave it out of both.", _rates_of_all),
            ("The two are the wrong way round.", lambda c, s: _rates(c, s)[::-1]),
        ),
    ),
    "mu_align": Exercise(
        1, "attributions (n, H, W) and masks (n, H, W) bool", _maps, mu_align,
        (
            ("It is the share inside the mask: take 1 minus it.", lambda a, m: 1 - mu_align(a, m)),
            ("Negative attributions count too: take absolute values.", lambda a, m: mu_align(a.clamp_min(0), m)),
            (
                "It is one share of all maps together: take each map's share, then the mean.",
                lambda a, m: float(1 - (a.abs() * m).sum() / a.abs().sum()),
            ),
        ),
    ),
    "entropy": Exercise(
        2, "probabilities (n, K)", _probabilities, entropy,
        (
            ("It is in bits: take the natural logarithm.", lambda p: entropy(p) / np.log(2)),
            ("It has the wrong sign.", lambda p: -entropy(p)),
        ),
    ),
    "enrichment_curve": Exercise(
        2, "scores (n,) and amounts (n,)", lambda g: (_uniform(g, 9), _uniform(g, 9)), enrichment_curve,
        (
            ("It begins with the highest scores: sort ascending.", lambda s, a: enrichment_curve(-s, a)),
            ("It lacks the 0 for no samples at its head.", lambda s, a: enrichment_curve(s, a)[1:]),
        ),
    ),
    "deeplift_shap": Exercise(
        3, "a model, images (n, C, H, W), targets (n,) and baselines (b, C, H, W)", _explained, deeplift_shap,
        (
            (
                "It is gradient times input: take secants, and the change from each baseline.",
                lambda m, x, t, b: _gradient_times(m, x, t, x),
            ),
            (
                "It is the gradient times the change from the mean baseline: take secants.",
                lambda m, x, t, b: _gradient_times(m, x, t, x - b.mean(0)),
            ),
            (
                "It compares with the mean baseline: explain against each, then average.",
                lambda m, x, t, b: deeplift_shap(m, x, t, b.mean(0).repeat(2, 1, 1, 1)),
            ),
            (
                "It is the sum over baselines: take the mean.",
                lambda m, x, t, b: len(b) * deeplift_shap(m, x, t, b),
            ),
        ),
    ),
    "positive_effect": Exercise(
        4, "attributions (n, H, W)", lambda g: _maps(g)[:1], positive_effect,
        (
            ("It counts negative attributions: drop them.", lambda a: positive_effect(a.abs())),
            (
                "It divides by the sum of all attributions: drop the negative ones first.",
                lambda a: a.clamp_min(0) / a.sum((1, 2), keepdim=True),
            ),
            (
                "It divides by the sum over all maps: each map sums to 1.",
                lambda a: a.clamp_min(0) / a.clamp_min(0).sum(),
            ),
        ),
    ),
    "em_step": Exercise(
        4, "z (P, 2), p (P,), shares (J,), means (J, 2), covariances (J, 2, 2) and floor (2, 2)", _mixture, em_step,
        (
            ("It leaves the floor out of the covariances.", partial(em_step, floored=False)),
            ("Each pixel counts alike: weigh it by its mass p.", partial(em_step, weighted=False)),
            ("The covariances are taken around the old means.", partial(em_step, fresh=False)),
        ),
    ),
    "vote": Exercise(
        5, "a list of verdicts, each a tuple of kinds", _votes, _majority,
        (
            (
                "The commonest kind wins even with less than half of the votes: then it is undecided.",
                _plurality,
            ),
        ),
    ),
    "rrr_penalty": Exercise(
        6, "a model, images (n, C, H, W) and masks (n, H, W) bool", _penalised, rrr_penalty,
        (
            ("It penalises what is not masked.", lambda m, x, a: rrr_penalty(m, x, ~a)),
            (
                "It takes the slopes of the logits: take those of the log-probabilities.",
                lambda m, x, a: _penalty_of(m, x, a, nn.Identity(), torch.square),
            ),
            (
                "It adds absolute slopes: square them.",
                lambda m, x, a: _penalty_of(m, x, a, _log_softmax, torch.abs),
            ),
            ("It is the mean: take the sum.", partial(rrr_penalty, reduction="mean")),
        ),
        differentiable=True,
    ),
    "correction_masks": Exercise(
        7, "labels (n, H, W), -1 for no segment, and spurious (n, J) bool", _verdicts, correction_masks,
        (
            ("It masks what is not spurious.", lambda s, r: correction_masks(s, ~r)),
            (
                "A pixel of label -1 lies in no segment; as an index, -1 is the last one.",
                lambda s, r: torch.stack([one[label] for one, label in zip(r, s, strict=True)]),
            ),
        ),
    ),
    "to_lab": Exercise(
        9, "colours (..., 3) in 0 to 1, as red, green and blue", _colours, rgb2lab,
        (
            (
                "The display's curve is not undone: do that first.",
                lambda c: rgb2lab(np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)),
            ),
            ("It is in 0 to 255: the formula takes 0 to 1.", lambda c: rgb2lab(c / 255)),
            ("a and b have changed places.", lambda c: rgb2lab(c)[..., [0, 2, 1]]),
        ),
    ),
    "share_of_gain": Exercise(
        11, "arm, method and untreated, n numbers each", _arms, lambda a, m, u: share_of_gain(a, m, u)[0],
        (
            (
                "It compares the scores themselves: subtract the untreated ones first.",
                lambda a, m, u: float(np.mean(a) / np.mean(m)),
            ),
            (
                "It is the mean of the ratios: take the ratio of the means.",
                lambda a, m, u: float(np.mean((np.array(a) - u) / (np.array(m) - u))),
            ),
        ),
    ),
    "class_order": Exercise(
        13, "predicted (n,), the largest output of each image, and labels (n,)", _answers, class_order,
        (
            (
                "It is the order the other way round: say of each output which class it is.",
                lambda p, y: class_order(p, y).argsort(),
            ),
            ("It trusts the order that there is.", lambda p, y: torch.arange(int(y.max()) + 1)),
        ),
    ),
    "leaning": Exercise(
        14, "kinds (n, J), places in KINDS, shares (n, J) and labels (n,)", _judged, _leaning,
        (
            (
                "It counts segments: add up their shares.",
                partial(_leaning_by, counted=True, among=torch.sum),
            ),
            (
                "It divides by the number of all images: take those of the class.",
                partial(_leaning_by, counted=False, among=len),
            ),
        ),
    ),
    "fleiss_kappa": Exercise(
        15, "ratings (raters, items), whole numbers from 0", _ratings, fleiss_kappa,
        (
            ("It is the agreement itself: set off what chance gives.", mean_pairwise_agreement),
            (
                "It takes all kinds for equally likely: take the shares in which they were given.",
                lambda r: _kappa(r, 1 / (r.max() + 1)),
            ),
        ),
    ),
}  # fmt: skip
"""The functions that can be checked, by name."""
