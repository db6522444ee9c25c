"""What LVLM-VA is measured against, and controls that show where its gain comes from.

Two more comparisons need no function of their own.  Plain fine-tuning for the
same steps on the same batches is :func:`~lvlmva_lite.alignment.align` with
``penalty_weight=0``; "right for the right reasons" with ground-truth masks is
``align`` with a data set's ``spurious_masks``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm import tqdm

from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.metrics import group_accuracy, worst_group_accuracy
from lvlmva_lite.models import Classifier, fit
from lvlmva_lite.segmentation import segment_sums
from lvlmva_lite.streams import derived_seed, numpy_stream, stream
from lvlmva_lite.threads import threads


@dataclass(frozen=True)
class Supervision:
    """What a method reads besides images and class labels.

    Choosing settings by worst-group accuracy takes the groups of the
    validation split for every method, and is not counted here.

    Attributes
    ----------
    train_groups, validation_groups : the group of each sample of that split
    masks : where the shortcut is, on each alignment sample
    words : a sentence about each class
    """

    train_groups: bool = False
    validation_groups: bool = False
    masks: bool = False
    words: bool = False


SUPERVISION: Mapping[str, Supervision] = {
    "plain training": Supervision(),
    "plain fine-tuning": Supervision(),
    "JTT": Supervision(),
    "SUBG": Supervision(train_groups=True),
    "DFR": Supervision(validation_groups=True),
    "RRR": Supervision(masks=True),
    "LVLM-VA": Supervision(words=True),
}


@dataclass(frozen=True)
class Baseline:
    """A trained model and what it learnt from.

    Attributes
    ----------
    model : nn.Module, in eval mode
    indices : Tensor, (m,), int64
        The samples of the data set that it learnt from, repeats included:
        SUBG's balanced subset of the training data; all validation samples
        for DFR; for JTT all training samples, each once, then the errors of
        the first model again, ``upweight - 1`` times
    trials : list of dict
        The settings tried on the way and their scores, see :func:`select`;
        empty but for DFR
    """

    model: nn.Module
    indices: Tensor
    trials: list[dict[str, Any]]


def balanced_subset(dataset: ShortcutDataset, *, random_state: int) -> Tensor:
    """As many samples of every group as the smallest group holds, drawn at random.

    Parameters
    ----------
    dataset : its groups are read
    random_state : int, draws the samples

    Returns
    -------
    Tensor, (m,), int64, sorted

    Raises
    ------
    ValueError : a group is empty
    """
    _check_groups(dataset, 1, "balanced_subset")
    return _balanced(dataset.groups, stream(random_state, "SUBG's subset"))


def subg(
    new_model: Callable[[int], nn.Module],
    train: ShortcutDataset,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    weight_decay: float = 0.0,
    decay: bool = False,
    random_state: int = 0,
    progress: bool = False,
) -> Baseline:
    """SUBG: plain training on a group-balanced subset.

    Every group is cut down to the size of the smallest (Idrissi, Arjovsky,
    Pezeshki and Lopez-Paz, "Simple data balancing achieves competitive
    worst-group accuracy", CLeaR 2022).

    Parameters
    ----------
    new_model : makes an untrained model from a seed
    train : the training split; its groups are read
    epochs, learning_rate, batch_size, weight_decay, decay : see :func:`~lvlmva_lite.models.fit`;
        epochs are passes over the subset
    random_state : int, draws the subset, the initial weights and the batches
    progress : show a progress bar

    Returns
    -------
    Baseline

    Raises
    ------
    ValueError : a group is empty
    """
    _check_groups(train, 1, "SUBG")
    indices = balanced_subset(train, random_state=random_state)
    model = new_model(random_state)
    fit(
        model,
        train.images,
        train.labels,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        weight_decay=weight_decay,
        decay=decay,
        indices=indices,
        random_state=random_state,
        progress=progress,
    )
    return Baseline(model, indices, [])


@threads()
def dfr(
    model: Classifier,
    validation: ShortcutDataset,
    *,
    n_fits: int = 20,
    Cs: Sequence[float] = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
    batch_size: int = 256,
    random_state: int = 0,
    progress: bool = False,
) -> Baseline:
    """DFR: a new last layer, fitted on group-balanced validation samples.

    Deep feature reweighting (Kirichenko, Izmailov and Wilson, "Last layer
    re-training is sufficient for robustness to spurious correlations", ICLR
    2023).  The embedding stays as it is.  The validation split is halved,
    group by group; an L1 logistic regression is fitted on a group-balanced
    subset of one half for each C, and the C of the best worst-group accuracy
    on the other half is taken.  The new head is the average of ``n_fits`` fits
    with that C, on balanced subsets of the whole split drawn anew each time.
    Embeddings are standardised over all samples of the half, or of the whole
    split; that is folded into the head.

    Parameters
    ----------
    model : has ``embed`` and ``head``; not changed
    validation : its groups are read; the score on it is no estimate of anything afterwards
    n_fits : fits averaged
    Cs : inverse strengths of the L1 penalty; of those that score alike the
        first is taken.  A fit takes well below a second for 64 features, and
        tens of seconds for 1280 and C = 1.
    batch_size : images embedded at once
    random_state : int, draws halves and subsets
    progress : show a progress bar

    Returns
    -------
    Baseline
        a copy of ``model`` with the new head; for two classes its logits are
        minus and plus half of the regression's decision function

    Raises
    ------
    TypeError : the model has no ``embed`` and ``head``
    ValueError : a group has fewer than two samples
    """
    if not isinstance(model, Classifier):
        raise TypeError(f"dfr needs a Classifier, which has embed and head, got {type(model).__name__}")
    _check_groups(validation, 2, "DFR")
    generator = stream(random_state, "DFR's halves and subsets")
    solver_seed = derived_seed(random_state, "DFR's solver")
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        embedding = torch.cat([model.embed(batch) for batch in validation.images.split(batch_size)])
    embedding = embedding.double().numpy()
    labels, groups, n_groups = validation.labels, validation.groups, len(validation.group_names)

    first, second = _halves(groups, generator)
    chosen = first[_balanced(groups[first], generator)]
    scaler = StandardScaler().fit(embedding[first])

    def evaluate(C: float) -> float:
        regression = l1_regression(C, solver_seed).fit(scaler.transform(embedding[chosen]), labels[chosen])
        predicted = torch.from_numpy(regression.predict(scaler.transform(embedding[second])))
        return worst_group_accuracy(group_accuracy(predicted, labels[second], groups[second], n_groups))

    best, trials = select([{"C": C} for C in Cs], evaluate)

    scaler = StandardScaler().fit(embedding)
    coefficients, intercepts = [], []
    for _ in tqdm(range(n_fits), desc="refitting", unit="fit", disable=not progress):
        chosen = _balanced(groups, generator)
        regression = l1_regression(best["C"], solver_seed).fit(
            scaler.transform(embedding[chosen]), labels[chosen]
        )
        coefficients.append(regression.coef_)
        intercepts.append(regression.intercept_)
    weight = np.mean(coefficients, 0) / scaler.scale_
    bias = np.mean(intercepts, 0) - weight @ scaler.mean_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias))
    return Baseline(model, torch.arange(len(validation)), trials)


def jtt(
    new_model: Callable[[int], nn.Module],
    train: ShortcutDataset,
    *,
    first_epochs: int,
    upweight: int,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    weight_decay: float = 0.0,
    decay: bool = False,
    random_state: int = 0,
    progress: bool = False,
) -> Baseline:
    """JTT, "just train twice": what a first model gets wrong is repeated for a second.

    Liu et al., "Just train twice: improving group robustness without training
    group information", ICML 2021.  The errors are, as in the authors' code,
    those of the predictions made during the last of the first epochs, each
    before the step that learns from it.

    Parameters
    ----------
    new_model : makes an untrained model from a seed
    train : the training split; its groups are not read
    first_epochs : epochs of the first model
    upweight : how often the second model sees an error in an epoch, 1 for
        plain training; the authors' code adds this number to the one time that
        every sample is seen
    epochs : epochs of the second model, which starts afresh; repeats make
        each of them longer
    learning_rate, batch_size, weight_decay, decay : see :func:`~lvlmva_lite.models.fit`, for both models
    random_state : int, draws the initial weights and the batches
    progress : show a progress bar

    Returns
    -------
    Baseline

    Raises
    ------
    ValueError : ``first_epochs`` or ``upweight`` below 1
    """
    for name, value in (("first_epochs", first_epochs), ("upweight", upweight)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    options = {
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "weight_decay": weight_decay,
        "decay": decay,
        "random_state": random_state,
        "progress": progress,
    }
    running = torch.empty_like(train.labels)

    def remember(batch: Tensor, logits: Tensor) -> None:
        running[batch] = logits.argmax(1)

    fit(
        new_model(random_state),
        train.images,
        train.labels,
        epochs=first_epochs,
        on_batch=remember,
        **options,
    )
    errors = (running != train.labels).nonzero()[:, 0]
    indices = torch.cat([torch.arange(len(train)), errors.repeat(upweight - 1)])
    model = new_model(random_state)
    fit(model, train.images, train.labels, epochs=epochs, indices=indices, **options)
    return Baseline(model, indices, [])


def placebo_masks(masks: Tensor, *, random_state: int) -> Tensor:
    """Masks of the same size and shape in the wrong place.

    Aligning with them shows what the penalty does whatever it is put on.
    Each mask is shifted, around the image's edges if need be.  Of all shifts
    those that overlap the original least are taken; of these, those that
    cross no edge, if there are any; of these, one at random.

    Parameters
    ----------
    masks : (n, H, W) bool
    random_state : int, draws the shifts

    Returns
    -------
    Tensor, (n, H, W), bool, each with as many pixels as its original
    """
    rng = numpy_stream(random_state, "placebo masks")
    moved = torch.empty_like(masks)
    for i, mask in enumerate(masks.numpy()):
        # Overlap of the mask with itself for every shift at once: its circular autocorrelation.
        overlap = np.fft.irfft2(np.abs(np.fft.rfft2(mask)) ** 2, mask.shape).round()
        crosses = _crosses_edge(mask.any(1))[:, None] | _crosses_edge(mask.any(0))
        # Overlaps are whole numbers: crossing costs less than one pixel, the draw less than crossing.
        cost = overlap + 0.5 * crosses + rng.uniform(0, 0.5, mask.shape)
        shift = np.unravel_index(cost.argmin(), mask.shape)
        moved[i] = masks[i].roll(tuple(int(s) for s in shift), (0, 1))
    return moved


def shuffle_verdicts(kinds: Tensor, labels: Tensor, *, random_state: int) -> Tensor:
    """Every case gets the verdicts on another case.

    Aligning with them shows what it is worth that verdicts speak of the image
    at hand.  Verdicts change places only between cases in which the same
    segments hold pixels; a case that has no match keeps its own.

    Parameters
    ----------
    kinds : (n, J), the verdicts
    labels : (n, H, W) int64, segment of each pixel, -1 for none
    random_state : int, draws who gets whose

    Returns
    -------
    Tensor, (n, J), dtype of ``kinds``
    """
    generator = stream(random_state, "shuffled verdicts")
    present = segment_sums(labels, kinds.shape[1]) > 0
    patterns = present.unique(dim=0, return_inverse=True)[1]
    shuffled = kinds.clone()
    for pattern in patterns.unique():
        cases = (patterns == pattern).nonzero()[:, 0]
        cases = cases[torch.randperm(len(cases), generator=generator)]
        # Each from its neighbour in a random ring, so that none of two or more gets its own.
        shuffled[cases] = kinds[cases.roll(1)]
    return shuffled


def select(
    candidates: Sequence[Mapping[str, Any]], evaluate: Callable[..., float]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings of the highest score; give every method as many candidates.

    Parameters
    ----------
    candidates : settings to try; of equals the first wins
    evaluate : called with the settings as keywords; returns the score, for
        comparisons worst-group accuracy on the *validation* split

    Returns
    -------
    best : dict, the settings
    trials : list of dict, each candidate's settings and its "score"

    Raises
    ------
    ValueError : no candidates, or a score is not a number
    """
    if not candidates:
        raise ValueError("candidates is empty; give at least one dict of settings")
    trials = []
    for settings in candidates:
        score = float(evaluate(**settings))
        if np.isnan(score):
            raise ValueError(f"the score of {dict(settings)} is not a number; check evaluate")
        trials.append({**settings, "score": score})
    best = max(range(len(trials)), key=lambda i: trials[i]["score"])
    return dict(candidates[best]), trials


def _check_groups(dataset: ShortcutDataset, least: int, method: str) -> None:
    counts = torch.bincount(dataset.groups, minlength=len(dataset.group_names))
    small = [
        f"{name!r} has {n}"
        for name, n in zip(dataset.group_names, counts.tolist(), strict=True)
        if n < least
    ]
    if small:
        raise ValueError(
            f"{method} needs at least {least} of each group in {dataset.name}, but {', '.join(small)}; "
            "give it data with such samples"
        )


def _balanced(groups: Tensor, generator: torch.Generator) -> Tensor:
    """Sorted indices of as many members of every group as the smallest one has."""
    order = torch.randperm(len(groups), generator=generator)
    members = [order[groups[order] == group] for group in groups.unique()]
    least = min(len(group) for group in members)
    return torch.cat([group[:least] for group in members]).sort().values


def _halves(groups: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of two halves, each with half of every group."""
    order = torch.randperm(len(groups), generator=generator)
    members = [order[groups[order] == group] for group in groups.unique()]
    return (
        torch.cat([group[: len(group) // 2] for group in members]),
        torch.cat([group[len(group) // 2 :] for group in members]),
    )


def l1_regression(C: float, random_state: int = 0) -> LogisticRegression:
    """scikit-learn's logistic regression with an L1 penalty of strength 1 / ``C``, not fitted yet.

    Before 1.8, scikit-learn took ``l1_ratio`` only together with ``penalty``, which it has deprecated since;
    alone it stood for L2, with no more than a warning.

    Parameters
    ----------
    C : > 0; the smaller, the fewer weights differ from 0
    random_state : seed of the solver, which visits samples in a random order
    """
    regression = LogisticRegression(
        C=C, l1_ratio=1, solver="saga", max_iter=5000, random_state=random_state
    )
    if regression.get_params().get("penalty") == "l2":
        regression.set_params(penalty="elasticnet")
    return regression


def _crosses_edge(line: np.ndarray) -> np.ndarray:
    """For each cyclic shift of ``line`` (L,) bool: would its span from first to last True cross an end?"""
    where = line.nonzero()[0]
    if not len(where):
        return np.zeros(len(line), bool)
    shifts = np.arange(len(line))
    return (where[-1] + shifts >= len(line)) & (where[0] + shifts < len(line))
