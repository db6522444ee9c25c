"""How the alignment of DecoyMNIST depends on its settings: chapter 06, one seed at a time.

Each ``*_sweep`` takes a seed and gives the rows of a tidy place.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lvlmva_lite import metrics
from lvlmva_lite.alignment import align, rrr_penalty
from lvlmva_lite.datasets import ShortcutDataset, load_decoy_mnist
from lvlmva_lite.models import predict, predict_proba
from lvlmva_lite.pipeline import Prepared, prepare, taking_part, trained
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.sampling import sample_alignment_set
from lvlmva_lite.tasks import DecoyMNIST
from lvlmva_lite.threads import threads

LAMBDAS = (0.0, 0.02, 0.2, 2.0, 20.0, 200.0, 1000.0)
"""Of :func:`lambda_sweep`: weights of the penalty averaged over samples and pixels."""

TASK = DecoyMNIST()

ARMS = ("lvlm_va", "ground_truth_masks")

SETTINGS = {
    "as in chapter 00": {"train_epochs": 5, "pixels": 28},
    "trained for 1 epoch": {"train_epochs": 1, "pixels": 28},
    "trained for 15 epochs": {"train_epochs": 15, "pixels": 28},
    "14 pixels a side": {"train_epochs": 5, "pixels": 14},
}
"""Of :func:`scale_sweep`: name -> arguments of :func:`bench`."""

NATS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
EPOCHS = (2, 8, 32)
PAPER_LAMBDA = 1e5 / 255**2 * 28**2
"""The paper's 1e5 in the units of ``align``, if it stood before a sum over pixels of 0-255."""


def lambda_rows(
    prepared: Prepared, lambdas: Sequence[float] = LAMBDAS, arms: Sequence[str] = ARMS
) -> list[dict]:
    """Align one prepared model with each penalty weight, by verdicts and by true masks.

    Parameters
    ----------
    prepared : from :func:`pipeline.prepare`
    lambdas : penalty weights >= 0
    arms : of ``ARMS``

    Returns
    -------
    list of dict
        "arm" ("before" in the first row, whose weight is nan), "penalty_weight",
        "initial_penalty" (mean of the penalty before the first step),
        "accuracy", "accuracy_clean" and "mu_align"
    """
    chosen, verdicts = prepared.chosen, prepared.verdicts()
    judged = prepared.masks(verdicts)
    masks = {
        "lvlm_va": (judged, taking_part(verdicts, judged, prepared.config.keep_unjudged)),
        "ground_truth_masks": (chosen.spurious_masks, torch.ones(len(chosen), dtype=torch.bool)),
    }
    before = {"arm": "before", "penalty_weight": math.nan, "initial_penalty": math.nan}
    rows = [before | prepared.score(prepared.model)]
    for arm in arms:
        mask, keep = masks[arm]
        initial = rrr_penalty(prepared.model, chosen.images[keep], mask[keep], reduction="mean").item()
        for weight in lambdas:
            model = prepared.aligned(mask, keep, penalty_weight=weight)
            row = {"arm": arm, "penalty_weight": weight, "initial_penalty": initial}
            rows.append(row | prepared.score(model))
    return rows


@EXPERIMENTS.register("decoy_lambda")
def lambda_sweep(seed: int) -> list[dict]:
    """Accuracy and mu_Align against lambda on the test set (paper, Figure 6)."""
    return lambda_rows(prepare(TASK, TASK.config(seed=seed, n_explained=500)))


@dataclass(frozen=True)
class Bench:
    """A quick place to try settings of the alignment, with true masks and on the validation split.

    Attributes
    ----------
    model : nn.Module, took the shortcut
    plain : ShortcutDataset, the 10 000 training images that batches are filled up with
    chosen : ShortcutDataset, the alignment set of 1000 with its true masks
    validation, clean : ShortcutDataset, with a square of random shade and with none
    """

    model: nn.Module
    plain: ShortcutDataset
    chosen: ShortcutDataset
    validation: ShortcutDataset
    clean: ShortcutDataset

    def initial_penalty(self) -> float:
        """Mean of the penalty over the alignment set before any step."""
        return rrr_penalty(
            self.model, self.chosen.images, self.chosen.spurious_masks, reduction="mean"
        ).item()

    @threads()
    def gradient_ratio(self) -> float:
        """Norm of the cross-entropy's gradient in the weights over that of the penalty's, at the start."""
        images, labels, masks = self.chosen.images, self.chosen.labels, self.chosen.spurious_masks
        losses = (
            nn.functional.cross_entropy(self.model(images), labels),
            rrr_penalty(self.model, images, masks, reduction="mean"),
        )
        parameters = list(self.model.parameters())
        of_loss, of_penalty = (
            nn.utils.parameters_to_vector(
                torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            ).norm()
            for loss in losses
        )
        return (of_loss / of_penalty).item()

    def aligned(
        self, *, model: nn.Module | None = None, plain: ShortcutDataset | None = None, **settings: float
    ) -> nn.Module:
        """A fine-tuned copy of ``model``; ``settings`` are those of :func:`alignment.align`."""
        student, plain = copy.deepcopy(model or self.model), plain or self.plain
        align(
            student, plain.images, plain.labels,
            self.chosen.images, self.chosen.labels, self.chosen.spurious_masks,
            **{"epochs": 5, "learning_rate": 3e-3} | settings,
        )  # fmt: skip
        return student

    def score(self, model: nn.Module) -> dict[str, float]:
        """ "accuracy" on validation decoys and "accuracy_clean" on the same digits without square."""
        return {
            name: metrics.accuracy(predict(model, dataset.images), dataset.labels)
            for name, dataset in (("accuracy", self.validation), ("accuracy_clean", self.clean))
        }

    @threads()
    def objective(self, model: nn.Module, penalty_weight: float) -> float:
        """The loss that ``align`` minimises, over all plain and all alignment samples."""
        with torch.no_grad():
            plain, chosen = (
                nn.functional.cross_entropy(model(part.images), part.labels).item()
                for part in (self.plain, self.chosen)
            )
        penalty = rrr_penalty(model, self.chosen.images, self.chosen.spurious_masks, reduction="mean")
        return (plain + chosen) / 2 + penalty_weight * penalty.item()


def bench(seed: int, *, train_epochs: int = 5, pixels: int = 28) -> Bench:
    """Train a network on decoys of ``pixels`` a side and take its surest images.

    Parameters
    ----------
    seed : int
    train_epochs : how long the shortcut is learnt
    pixels : 28, or a divisor of it: means of blocks of pixels

    Raises
    ------
    ValueError : ``pixels`` does not divide 28 or leaves the square less than a pixel
    """
    if pixels not in (7, 14, 28):
        raise ValueError(f"pixels must be 28, 14 or 7, got {pixels}")

    def load(split: str, **shade: str) -> ShortcutDataset:
        dataset, r = load_decoy_mnist(split, random_state=seed, **shade), 28 // pixels
        return dataclasses.replace(
            dataset,
            images=nn.functional.avg_pool2d(dataset.images, r),
            spurious_masks=dataset.spurious_masks[:, ::r, ::r],
            core_masks=None,
        )

    train = load("train")
    config = TASK.config(seed=seed, train_epochs=train_epochs)
    model = trained(TASK, config, train)
    indices = sample_alignment_set(
        predict_proba(model, train.images), train.labels, config.n_align,
        strategy="low", balanced=True, random_state=seed,
    )  # fmt: skip
    return Bench(
        model,
        train.subset(torch.arange(10_000)),
        train.subset(indices),
        load("validation"),
        load("validation", shade="none"),
    )


def scale_rows(name: str, place: Bench, nats: Sequence[float] = NATS) -> list[dict]:
    """Accuracy of one bench against lambda in nats, and what that lambda is in two other units."""
    initial, ratio = place.initial_penalty(), place.gradient_ratio()
    return [
        {"setting": name, "nats": value, "penalty_weight": value / initial}
        | {"in_gradient_ratios": value / initial / ratio}
        | place.score(place.aligned(penalty_weight=value, penalty_scale="initial"))
        for value in nats
    ]


@EXPERIMENTS.register("decoy_scale")
def scale_sweep(seed: int) -> list[dict]:
    """Does the best lambda move with the resolution and the length of training?"""
    return [row for name, setting in SETTINGS.items() for row in scale_rows(name, bench(seed, **setting))]


def budget_rows(
    place: Bench,
    lambdas: Sequence[float] = (2.0, 200.0, PAPER_LAMBDA),
    epochs: Sequence[int] = EPOCHS,
    *,
    first: nn.Module | None = None,
) -> list[dict]:
    """Each weight with each number of passes, from the shortcut or from the model ``first``."""
    rows = []
    for weight in lambdas:
        for passes in epochs:
            model = place.aligned(model=first, penalty_weight=weight, epochs=passes)
            rows.append(
                {"start": "aligned" if first else "shortcut", "penalty_weight": weight, "epochs": passes}
                | {"objective": place.objective(model, weight)}
                | place.score(model)
            )
    return rows


@EXPERIMENTS.register("decoy_budget")
def budget_sweep(seed: int) -> list[dict]:
    """Do large penalty weights fail by their optimum or on the way there?"""
    place = bench(seed)
    first = place.aligned(penalty_weight=2.0, epochs=8)
    return budget_rows(place) + budget_rows(place, (PAPER_LAMBDA,), (8,), first=first)


def mixing_rows(place: Bench, fractions: Sequence[float] = FRACTIONS) -> list[dict]:
    """300 steps of 256 samples with a share of alignment samples; 1.0: these alone."""
    rows = []
    for fraction in fractions:
        half = 0.5 if fraction == 1 else fraction
        n_plain = 60 * (256 - round(half * 256))
        source = place.chosen if fraction == 1 else place.plain
        plain = source.subset(torch.arange(n_plain) % len(source))
        model = place.aligned(plain=plain, penalty_weight=2.0, align_fraction=half)
        rows.append({"align_fraction": fraction} | place.score(model))
    return rows


@EXPERIMENTS.register("decoy_mixing")
def mixing_sweep(seed: int) -> list[dict]:
    """What is forgotten as fewer plain samples are mixed in?"""
    return mixing_rows(bench(seed))
