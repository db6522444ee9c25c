"""Time of what picks the alignment set and of what measures a model, beside scikit-learn and SciPy.

``python benchmarks/sampling_and_metrics.py``.  Numbers are drawn, as many as a test set of MNIST has or more.
SciPy's exact signed-rank test does not take ties, so that the pairs have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from scipy.stats import entropy as scipy_entropy
from scipy.stats import wilcoxon
from sklearn.metrics import recall_score
from timing import compare, scaling, write

from lvlmva_lite.metrics import group_accuracy, paired_test
from lvlmva_lite.sampling import entropy

DRAW = torch.Generator().manual_seed(0)


def of_probabilities(n: int) -> Callable[[], Any]:
    """The work of the entropies of ``n`` predictions among ten classes."""
    probabilities = torch.rand(n, 10, generator=DRAW).softmax(1)
    return lambda: entropy(probabilities)


def of_groups(n: int) -> Callable[[], Any]:
    """The work of the accuracies of ``n`` answers in 20 groups."""
    answers, labels = torch.randint(0, 2, (2, n), generator=DRAW)
    groups = torch.randint(0, 20, (n,), generator=DRAW)
    return lambda: group_accuracy(answers, labels, groups, 20)


def main() -> None:
    """Measure and write."""
    probabilities = torch.rand(60_000, 10, generator=DRAW).softmax(1)
    as_array = probabilities.numpy()
    worst = float(np.abs(entropy(probabilities).numpy() - scipy_entropy(as_array, axis=1)).max())
    less = "largest difference from the peer's, less is better"
    rows = [
        compare(
            "entropies of 60,000 predictions among ten classes", f"SciPy {scipy.__version__}",
            lambda: entropy(probabilities), lambda: scipy_entropy(as_array, axis=1), {less: (worst, 0.0)},
        )
    ]  # fmt: skip

    answers, labels = torch.randint(0, 2, (2, 100_000), generator=DRAW)
    groups = torch.randint(0, 20, (100_000,), generator=DRAW)
    right, home = (answers == labels).numpy(), groups.numpy()

    def recalls() -> np.ndarray:
        """A group's accuracy is the recall of its samples, when right ones are told by their group."""
        return recall_score(home, np.where(right, home, -1), labels=range(20), average=None)

    worst = float(np.abs(group_accuracy(answers, labels, groups, 20).numpy() - recalls()).max())
    rows.append(
        compare(
            "accuracies of 100,000 answers in 20 groups", f"scikit-learn {sklearn.__version__}",
            lambda: group_accuracy(answers, labels, groups, 20), recalls, {less: (worst, 0.0)},
        )
    )  # fmt: skip

    after, before = torch.rand(2, 40, generator=DRAW, dtype=torch.float64).numpy()
    p = paired_test(after, before).p, float(wilcoxon(after, before, method="exact").pvalue)
    rows.append(
        compare(
            "100 exact signed-rank tests of 40 pairs", f"SciPy {scipy.__version__}",
            lambda: [paired_test(after, before) for _ in range(100)],
            lambda: [wilcoxon(after, before, method="exact") for _ in range(100)],
            {"p-value, should be equal": p},
        )
    )  # fmt: skip
    sizes = (10_000, 100_000, 1_000_000)
    curves = [
        scaling("entropies among ten classes", "predictions", sizes, of_probabilities),
        scaling("accuracies in 20 groups", "answers", sizes, of_groups),
    ]
    write("sampling_and_metrics", rows, curves)


if __name__ == "__main__":
    main()
