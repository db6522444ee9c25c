"""Real knees by a design that can show something: frozen features, crossed twins, cross-validation by patient.

A network pretrained on ImageNet is left as it is, and a linear head is trained on what it makes of each
image, so that a fold takes seconds beyond the passes through the network.  Of the finite difference the loss
is convex: what is compared are optima, not ends of training runs.  Every knee is tested, once in each repeat, with a letter and
without one, by a head that has seen no knee of the same patient.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvlmva_lite.alignment_set import recorded_set, verdict_quality
from lvlmva_lite.config import Config
from lvlmva_lite.critic import recordings
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.crossed import conflict_auc
from lvlmva_lite.datasets import ShortcutDataset, load_knee
from lvlmva_lite.datasets.knee import MARKER_RATES
from lvlmva_lite.experiments.frozen_heads import (
    Head,
    Penalty,
    balanced_weights,
    dro_weights,
    fit_head,
    jtt_weights,
)
from lvlmva_lite.experiments.twin_readouts import bootstrapped, patient_counts, readouts
from lvlmva_lite.fills import fill
from lvlmva_lite.methods.placebo import placebo_masks
from lvlmva_lite.models import Classifier, efficientnet_lite0
from lvlmva_lite.pipeline import Prepared, prepare
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.streams import stream
from lvlmva_lite.tasks.knee import Knee
from lvlmva_lite.tasks.phantoms import ALL, NONE
from lvlmva_lite.threads import late_import, threads

Row = dict[str, Any]

N_FOLDS = 5
SIZE = 128
"""Side of the images in pixels."""

N_ALIGN = 200
AMOUNTS = (25, 50, 100)
"""Smaller alignment sets, for the curve."""

WEIGHTS = (1.0, 10.0, 100.0)
"""Of the penalty, in nats, to choose from on a fold of patients that is neither trained on nor tested."""

L2 = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of half the squared head, to choose from by the log-loss of the same fold."""

N_DIRECTIONS = 4
"""Random directions under a mask by which RRR's sum over pixels is estimated."""

STEP = 2**-7
"""Of the differences that stand for derivatives, as a share of the range of pixels."""


@dataclass(frozen=True)
class Twins:
    """Every knee without and with a letter, and which of the two stands in the training data.

    Attributes
    ----------
    bare, marked : Tensor, (N, 1, H, W), float32
    masks : Tensor, (N, H, W), bool, the letter
    shows : Tensor, (N,), bool, whether the training data hold it with its letter
    labels : Tensor, (N,), int64, 0 healthy, 1 worn
    patients : ndarray, (N,), int64
    template : ShortcutDataset, names of classes and groups
    """

    bare: Tensor
    marked: Tensor
    masks: Tensor
    shows: Tensor
    labels: Tensor
    patients: np.ndarray
    template: ShortcutDataset

    def dataset(self, where: Tensor) -> ShortcutDataset:
        """The training data's images at ``where`` (n,), int64."""
        shows = self.shows[where]
        return ShortcutDataset(
            images=torch.where(shows[:, None, None, None], self.marked[where], self.bare[where]),
            labels=self.labels[where],
            groups=2 * self.labels[where] + shows.long(),
            spurious_masks=self.masks[where] & shows[:, None, None],
            class_names=self.template.class_names, group_names=self.template.group_names, name="knee",
        )  # fmt: skip


def twins(data_root: str, repeat: int, size: int = SIZE) -> Twins:
    """All knees of a folder, whatever split they lie in; ``repeat`` draws letters, and who gets one."""

    def at(rate: tuple[float, float]) -> list[Any]:
        return [
            load_knee(data_root, split, size=size, marker_rate=rate, random_state=repeat)
            for split in ("train", "validation", "test")
        ]

    bare, seen, marked = at(NONE), at(MARKER_RATES["train"]), at(ALL)

    def whole(parts: list[Any], field: str) -> Tensor:
        return torch.cat([getattr(part, field) for part in parts])

    names = [name for part in bare for name in part.names]
    patients = [int("".join(c for c in name.rpartition("/")[2] if c.isdigit())) for name in names]
    return Twins(
        whole(bare, "images"), whole(marked, "images"), whole(marked, "spurious_masks"),
        whole(seen, "groups") % 2 == 1, whole(bare, "labels"), np.array(patients), bare[0],
    )  # fmt: skip


def folds(labels: Tensor, patients: np.ndarray, repeat: int) -> list[np.ndarray]:
    """Places of each of ``N_FOLDS`` folds; no patient is in two, and classes are spread evenly."""
    model_selection = late_import("sklearn.model_selection")
    split = model_selection.StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=repeat)
    return [held for _, held in split.split(labels, labels, patients)]


@threads()
@torch.no_grad()
def embedded(network: Classifier, images: Tensor) -> Tensor:
    """What the head of a network sees, (n, D) float64."""
    return torch.cat([network.embed(part) for part in images.split(64)]).double()


@threads()
def directional(network: Classifier, images: Tensor, masks: Tensor, seed: int) -> Tensor:
    """Derivatives of the features along random directions under the masks, (n, ``N_DIRECTIONS``, D) float64.

    For signs v, drawn evenly, the mean of (w J (A v))^2 is the sum over masked pixels of the squared
    gradient of w z (Hutchinson, 1990): with these, RRR is a function of the head.  By central differences of
    ``STEP``, which take a fifth of the time of a forward-mode derivative.
    """
    generator = stream(seed, "directions")
    found = []
    for part, mask in zip(images.split(32), masks.split(32), strict=True):
        along = []
        for _ in range(N_DIRECTIONS):
            signs = torch.randint(2, part.shape, generator=generator) * 2.0 - 1
            ahead, behind = (
                embedded(network, part + step * signs * mask[:, None]) for step in (STEP, -STEP)
            )
            along.append((ahead - behind) / (2 * STEP))
        found.append(torch.stack(along, 1))
    return torch.cat(found)


def to_classifier(network: Classifier, head: Head, mean: Tensor, std: Tensor) -> Classifier:
    """The network with a head for its last layer, logits -z/2 and z/2."""
    weight = (head.weight / std).float()
    bias = (head.bias - head.weight @ (mean / std)).float()
    last = torch.nn.Linear(len(weight), 2)
    with torch.no_grad():
        last.weight.copy_(torch.stack([-weight, weight]) / 2)
        last.bias.copy_(torch.stack([-bias, bias]) / 2)
    return Classifier(*list(network)[:-1], last).eval()


@dataclass(frozen=True)
class _Fold(Knee):
    """The knees of a fold as a task, so that the method's own steps find its alignment set."""

    train: ShortcutDataset | None = dataclasses.field(default=None, repr=False, compare=False)

    def load(self, split: str, *, seed: int, clean: bool = False) -> ShortcutDataset | None:
        return None if clean else self.train

    def marked(self, split: str, *, seed: int) -> None:
        return None


def by_lexicon(
    network: Classifier, train: ShortcutDataset, data_root: str, seed: int, size: int
) -> Prepared:
    """Steps 1 to 3 of the method for a head on frozen features: its alignment set among ``train``."""
    task = _Fold(data_root=data_root, image_size=size, train=train)
    return prepare(task, task.config(seed=seed, n_align=N_ALIGN), model=network)


def by_real_critic(data_root: str, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The recorded cases among the training images, as a real model judged them on their own segment maps.

    These are of images of 64 pixels and of a network that was trained on all patients of the folder ``train``.

    Returns
    -------
    indices : (n,) within ``load_knee(data_root, "train", random_state=0)``
    masks : (n, size, size), bool
    kinds, truth : (n, J), int64
    """
    task = Knee(data_root=data_root)
    settings = CriticSettings(model="claude", prompt=recordings.DEFAULT_PROMPT)
    config: Config = task.config(seed=0, critic="recorded", critic_settings=settings)
    found = recorded_set(task.recording(config), config, task.load("train", seed=0))
    # Nobody is trained: of Prepared, verdicts and masks need the alignment set alone.
    ready = Prepared(task, config, *[None] * 3, torch.nn.Identity(), torch.empty(0), found, 0.0)  # type: ignore[list-item]
    kinds = ready.verdicts()
    small = ready.masks(kinds)
    masks = torch.nn.functional.interpolate(small[:, None].float(), size=(size, size))[:, 0] > 0.5
    return found.indices, masks, kinds, found.truth


class _Frozen:
    """One fold: the features of every twin, heads before alignment, and rows as they are measured."""

    def __init__(self, data_root: str, seed: int, size: int) -> None:
        self.data_root, self.seed, self.size = data_root, seed, size
        repeat, fold = divmod(seed, N_FOLDS)
        self.twins = twins(data_root, repeat, size)
        held = [torch.from_numpy(one) for one in folds(self.twins.labels, self.twins.patients, repeat)]
        self.test, self.validation = held[fold], held[(fold + 1) % N_FOLDS]
        self.inner = torch.cat([held[(fold + i) % N_FOLDS] for i in range(2, N_FOLDS)]).sort().values
        self.train = torch.cat([self.inner, self.validation]).sort().values
        self.network = efficientnet_lite0((1, size, size), 2).eval()
        bare, marked = (embedded(self.network, images) for images in (self.twins.bare, self.twins.marked))
        seen = torch.where(self.twins.shows[:, None], marked, bare)
        self.mean, self.std = seen[self.train].mean(0), seen[self.train].std(0).clamp_min(1e-6)
        self.bare, self.marked, self.seen = ((one - self.mean) / self.std for one in (bare, marked, seen))
        labels = self.twins.labels
        self.l2 = min(L2, key=lambda l2: self._log_loss(self.fitted(self.seen, self.inner, l2), labels))
        self.before = self.fitted(self.seen, self.train, self.l2)
        self.before_inner = self.fitted(self.seen, self.inner, self.l2)
        self.counts = patient_counts(self.twins.patients[self.test.numpy()], seed)
        self.rows: list[Row] = []
        self.draws: list[Tensor] = []

    def fitted(self, features: Tensor, where: Tensor, l2: float, **settings: Any) -> Head:
        return fit_head(features[where], self.twins.labels[where], l2, **settings)

    def _log_loss(self, head: Head, labels: Tensor) -> float:
        signs = 2.0 * labels[self.validation].double() - 1
        scores = head.scores(self.seen[self.validation])
        return torch.nn.functional.softplus(-signs * scores).mean().item()

    def twin_scores(self, head: Head, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return head.scores(self.bare[where]), head.scores(self.marked[where]), self.twins.labels[where]

    def measure(self, head: Head, masks: str, penalty: str, **more: Any) -> None:
        """A row of a head on the fold that is tested, and its conflict AUC in every draw of patients."""
        scores = self.twin_scores(head, self.test)
        self.rows.append({"masks": masks, "penalty": penalty, **more, **readouts(*scores)})
        self.draws.append(bootstrapped(*scores, self.counts))

    def penalties(self, where: Tensor, masks: Tensor) -> dict[str, Penalty]:
        """Finite difference and RRR, on images of the training data at ``where`` (n,) with masks (n, H, W)."""
        images = self.twins.dataset(where).images
        filled = (embedded(self.network, fill(images, masks)) - self.mean) / self.std
        slopes = directional(self.network, images, masks, self.seed) / self.std
        seen = self.seen[where]
        return {
            "finite-difference": Penalty((seen - filled)[:, None]),
            "rrr": Penalty(slopes, seen),
        }

    def align(self, masks: str, where: Tensor, penalty: str, by: Penalty, **more: Any) -> float:
        """Rows of every weight; the one chosen by the validation fold's conflict AUC is marked, and given back."""
        inside = torch.isin(where, self.inner)
        inner = by.of(inside)
        scale, inner_scale = (
            one(head.weight, head.bias).item()
            for one, head in ((by, self.before), (inner, self.before_inner))
        )
        first = len(self.rows)
        head, tried = self.before, self.before_inner
        for weight in WEIGHTS:
            tried = self.fitted(
                self.seen,
                self.inner,
                self.l2,
                penalty=inner,
                penalty_weight=weight / inner_scale,
                start=tried,
            )
            bare, marked, labels = self.twin_scores(tried, self.validation)
            head = self.fitted(
                self.seen, self.train, self.l2, penalty=by, penalty_weight=weight / scale, start=head
            )
            self.measure(
                head, masks, penalty, penalty_weight=weight, n_align=len(where),
                validation_auc=conflict_auc(-bare, -marked, labels == 0), **more,
            )  # fmt: skip
        tried_rows = self.rows[first:]
        best = max(tried_rows, key=lambda row: row["validation_auc"])
        for row in tried_rows:
            row["chosen"] = row is best
        return best["penalty_weight"]


def frozen_rows(data_root: str, seed: int, *, size: int = SIZE) -> list[Row]:
    """Every arm on one fold of one repeat: fold ``seed % 5`` of repeat ``seed // 5``.

    Returns
    -------
    list of dict
        "masks": "none", "true", "lexicon", "claude" (in the first repeat, whose letters its recorded cases
        show), or "placebo", the lexicon's in the wrong place; "penalty": "before", "never saw it" (trained
        without letters), "balanced groups" and "GroupDRO" (these know the groups), "JTT",
        "finite-difference" or "rrr"; "penalty_weight", in nats; "chosen", by another fold's twins where
        there are weights to choose from; "n_align";
        "curve": whether it is a smaller alignment set, at the weight chosen for the whole one;
        "verdict_sensitivity" and "verdict_specificity"; the fields of :func:`readouts`; "se", "gain_se" and
        "over_placebo_se": standard errors over patients of the conflict AUC, of its gain over "before", and
        of what it has beyond the placebo of the same penalty
    """
    fold = _Frozen(data_root, seed, size)
    train, shows = fold.train, fold.twins.shows
    fold.measure(fold.before, "none", "before", chosen=True)
    fold.measure(fold.fitted(fold.bare, train, fold.l2), "none", "never saw it", chosen=True)
    seen, labels = fold.seen[train], fold.twins.labels[train]
    for name, weights in {
        "balanced groups": balanced_weights(labels, shows[train]),
        "JTT": jtt_weights(fold.before, seen, labels, 5.0),
        "GroupDRO": dro_weights(seen, labels, shows[train], fold.l2),
    }.items():
        head = fit_head(seen, labels, fold.l2, sample_weight=weights)
        fold.measure(head, "none", name, chosen=True)

    network = to_classifier(fold.network, fold.before, fold.mean, fold.std)
    prepared = by_lexicon(network, fold.twins.dataset(train), data_root, seed, size)
    found = train[prepared.alignment_set.indices]
    kinds = prepared.verdicts()
    masks = prepared.masks(kinds)
    true = fold.twins.dataset(found).spurious_masks
    sources = {
        "true": (found, true, {}),
        "lexicon": (found, masks, verdict_quality(kinds, prepared.alignment_set.truth)),
        "placebo": (found, placebo_masks(masks, random_state=seed), {}),
    }
    if seed < N_FOLDS:
        where, said, kinds, truth = by_real_critic(data_root, size)
        inside = torch.isin(where, train)
        sources["claude"] = (where[inside], said[inside], verdict_quality(kinds[inside], truth[inside]))
    order = torch.randperm(len(found), generator=stream(seed, "smaller alignment sets"))
    for source, (where, mask, quality) in sources.items():
        ruled = {key: quality.get(key) for key in ("verdict_sensitivity", "verdict_specificity")}
        for penalty, by in fold.penalties(where, mask).items():
            weight = fold.align(source, where, penalty, by, curve=False, **ruled)
            if penalty == "rrr" or source not in ("true", "lexicon"):
                continue
            for amount in AMOUNTS:
                few = by.of(order[:amount])
                if scale := few(fold.before.weight, fold.before.bias).item():
                    settings = {"penalty": few, "penalty_weight": weight / scale}
                    head = fold.fitted(fold.seen, train, fold.l2, **settings)
                    fold.measure(
                        head,
                        source,
                        penalty,
                        penalty_weight=weight,
                        n_align=amount,
                        chosen=True,
                        curve=True,
                    )
    return _with_errors(fold.rows, fold.draws)


def _with_errors(rows: list[Row], draws: list[Tensor]) -> list[Row]:
    placebo = {
        row["penalty"]: drawn
        for row, drawn in zip(rows, draws, strict=True)
        if row["masks"] == "placebo" and row["chosen"]
    }
    for row, drawn in zip(rows, draws, strict=True):
        row["se"] = drawn.std().item()
        row["gain_se"] = (drawn - draws[0]).std().item()
        if row["penalty"] in placebo:
            row["over_placebo_se"] = (drawn - placebo[row["penalty"]]).std().item()
    return rows


@EXPERIMENTS.register("knee_frozen")
def frozen_sweep(seed: int, *, data_root: str) -> list[Row]:
    """:func:`frozen_rows` of real knees; twenty seeds are four repeats of five folds."""
    return frozen_rows(data_root, seed)
