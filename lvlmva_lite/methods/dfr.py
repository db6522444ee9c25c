"""DFR: a new last layer, fitted on group-balanced validation samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lvlmva_lite.config import ConfigError
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods.method import Baseline, Fitted, Method, Supervision, balanced, check_groups
from lvlmva_lite.metrics import group_accuracy, worst_group_accuracy
from lvlmva_lite.models import Classifier
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS
from lvlmva_lite.streams import derived_seed, stream
from lvlmva_lite.threads import late_import, threads

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


@METHODS.register("dfr")
class DFR(Method):
    """The embedding stays; chosen by the half of the validation split that was held out."""

    label = "DFR"
    supervision = Supervision(validation_groups=True)
    trials = ({"C": 0.1}, {"C": 0.01})
    fitted_on = ("train", "validation")

    def fit(
        self, prepared: Prepared, kinds: Tensor | None = None, *, progress: bool = False, C: float = 0.1
    ) -> Fitted:
        """``C`` is the inverse strength of the L1 penalty."""
        try:
            made = dfr(
                prepared.model, prepared.validation, Cs=(C,),
                random_state=prepared.config.seed, progress=progress,
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return Fitted(made.model, (prepared.train, prepared.validation), made.trials[0]["score"])


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

    Derived in chapter 10.

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
    StandardScaler = late_import("sklearn.preprocessing").StandardScaler
    if not isinstance(model, Classifier):
        raise TypeError(f"dfr needs a Classifier, which has embed and head, got {type(model).__name__}")
    check_groups(validation, 2, "DFR")
    generator = stream(random_state, "DFR's halves and subsets")
    solver_seed = derived_seed(random_state, "DFR's solver")
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        embedding = torch.cat([model.embed(batch) for batch in validation.images.split(batch_size)])
    embedding = embedding.double().numpy()
    labels, groups, n_groups = validation.labels, validation.groups, len(validation.group_names)

    first, second = halves(groups, generator)
    chosen = first[balanced(groups[first], generator)]
    scaler = StandardScaler().fit(embedding[first])

    def evaluate(C: float) -> float:
        regression = l1_regression(C, solver_seed).fit(scaler.transform(embedding[chosen]), labels[chosen])
        predicted = torch.from_numpy(regression.predict(scaler.transform(embedding[second])))
        return worst_group_accuracy(group_accuracy(predicted, labels[second], groups[second], n_groups))

    best, trials = select([{"C": C} for C in Cs], evaluate)

    scaler = StandardScaler().fit(embedding)
    coefficients, intercepts = [], []
    for _ in tqdm(range(n_fits), desc="refitting", unit="fit", disable=not progress):
        chosen = balanced(groups, generator)
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


def halves(groups: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
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

    Derived in chapter 10.

    Parameters
    ----------
    C : > 0; the smaller, the fewer weights differ from 0
    random_state : seed of the solver, which visits samples in a random order
    """
    regression = late_import("sklearn.linear_model").LogisticRegression(
        C=C, l1_ratio=1, solver="saga", max_iter=5000, random_state=random_state
    )
    if regression.get_params().get("penalty") == "l2":
        regression.set_params(penalty="elasticnet")
    return regression
