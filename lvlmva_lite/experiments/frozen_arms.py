"""Real images by a design that can show something: frozen features, crossed twins, cross-validation by patient.

A network pretrained on ImageNet is left as it is, and a linear head is trained on what it makes of each
image, so that a fold takes minutes, most of them for passes through the network.  The losses are convex, but
for RRR's: what are compared are optima, not ends of training runs.  Every knee is tested, once in each repeat,
with a letter and without one, by a head that has seen no knee of the same patient.  What is said here of knees
and letters holds of any :class:`Study`; moles and patches are :mod:`lvlmva_lite.experiments.frozen_skin`'s.

One rule chooses every arm's settings: the AUC on one fold of the training patients, of a head that is fitted on
the others, where the letter speaks against the label, or for it, if that is less.  (It is less of heads that
have turned the habit round, as JTT's do when errors count much; by the conflict AUC alone these would be best.)
The penalties choose their weight so, and the arms that know groups, or guess them, the l2 of their head (and JTT
its factor).  The l2 of "before", "never saw it" and the penalties is that of the least
log-loss on the same fold; what the rule alone gives, without group or mask, is the arm "l2 alone".
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lvlmva_lite.crossed import conflict_auc
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.experiments.frozen_heads import (
    Head,
    Penalty,
    balanced_weights,
    directional,
    dro_head,
    embedded,
    fit_head,
    jtt_weights,
    subset_head,
    to_classifier,
)
from lvlmva_lite.experiments.frozen_masks import Masks, OfFold, mask_sources
from lvlmva_lite.experiments.twin_readouts import (
    N_FOLDS,
    Twins,
    bootstrapped,
    folds,
    letter_coverage,
    patient_counts,
    readouts,
    twins,
)
from lvlmva_lite.fills import fill
from lvlmva_lite.models import efficientnet_lite0
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.streams import stream
from lvlmva_lite.tasks.knee import Knee

Row = dict[str, Any]

SIZE = 128
"""Side of the images in pixels."""

AMOUNTS = (25, 50, 100)
"""Smaller alignment sets, for the curve."""

WEIGHTS = (1.0, 10.0, 100.0, 1000.0)
"""Of the penalty, in nats, to choose from on a fold of patients that is neither trained on nor tested."""

L2 = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of half the squared head, to choose from by the log-loss of the same fold."""

L2_FACTORS = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Of that l2: what the arms that know groups choose from."""

UPWEIGHTS = (5.0, 20.0, 50.0)
"""How much more an error of JTT's first head counts, to choose from likewise."""

N_SUBSETS = 20
"""Balanced subsets of which DFR's head is the mean."""

N_DIRECTIONS = 16
"""Random directions under a mask by which RRR's sum over pixels is estimated."""

N_FRESH = 4
"""Further ones, which no head is fitted on."""


class Study(ABC):
    """What is studied.

    Attributes
    ----------
    task : whose steps find masks
    redrawn : whether every repeat has a spurious feature of its own on its training images, so that the
        recorded cases are of the first alone
    """

    task: type[OfFold]
    redrawn = True

    @abstractmethod
    def twins(self, data_root: str, repeat: int, size: int) -> Twins:
        """Every image that is studied."""

    @abstractmethod
    def recorded_train(self, data_root: str) -> ShortcutDataset:
        """The images of the recorded cases; those of :meth:`twins` begin with them."""

    def further(self, fold: Frozen) -> Callable[[Head], Row]:
        """What else is told of a head on a fold."""
        return lambda head: {}


@dataclass(frozen=True)
class KneeFold(OfFold, Knee):
    """Knees of a fold."""


class Knees(Study):
    """Real knees, with pasted letters."""

    task = KneeFold

    def twins(self, data_root: str, repeat: int, size: int) -> Twins:
        return twins(data_root, repeat, size)

    def recorded_train(self, data_root: str) -> ShortcutDataset:
        return Knee(data_root=data_root).load("train", seed=0)


@dataclass(frozen=True, eq=False)
class _Part:
    """What heads are fitted on: ``where`` (n,); ``apart`` (m,), DFR's images; and the head before alignment."""

    where: Tensor
    apart: Tensor
    before: Head


class Frozen:
    """One fold: the features of every twin, heads before alignment, and rows as they are measured."""

    def __init__(self, study: Study, data_root: str, seed: int, size: int) -> None:
        self.study, self.data_root, self.seed, self.size = study, data_root, seed, size
        repeat, fold = divmod(seed, N_FOLDS)
        self.twins = study.twins(data_root, repeat, size)
        held = [torch.from_numpy(one) for one in folds(self.twins.strata, self.twins.patients, repeat)]
        self.tested, self.validation, second = (held[(fold + i) % N_FOLDS] for i in range(3))
        self.test = self.twins.with_twin(self.tested)
        inner = torch.cat([held[(fold + i) % N_FOLDS] for i in range(2, N_FOLDS)]).sort().values
        train = torch.cat([inner, self.validation]).sort().values
        self.network = efficientnet_lite0(tuple(self.twins.bare.shape[1:]), 2).eval()
        bare, marked = (embedded(self.network, images) for images in (self.twins.bare, self.twins.marked))
        seen = torch.where(self.twins.shows[:, None], marked, bare)
        self.mean, self.std = seen[train].mean(0), seen[train].std(0).clamp_min(1e-6)
        self.bare, self.marked, self.seen = ((one - self.mean) / self.std for one in (bare, marked, seen))
        self.l2 = min(L2, key=lambda l2: self._log_loss(self.fitted(inner, l2)))
        self.inner = _Part(inner, second, self.fitted(inner, self.l2))
        self.train = _Part(train, self.validation, self.fitted(train, self.l2))
        self.counts = patient_counts(self.twins.patients[self.test.numpy()], seed)
        self.rows: list[Row] = []
        self.draws: list[Tensor] = []
        self.further = study.further(self)

    def features(self, images: Tensor) -> Tensor:
        """Standardised features (n, D) of images (n, C, H, W)."""
        return (embedded(self.network, images) - self.mean) / self.std

    def fitted(self, where: Tensor, l2: float, **settings: Any) -> Head:
        return fit_head(self.seen[where], self.twins.labels[where], l2, **settings)

    def _log_loss(self, head: Head) -> float:
        signs = 2.0 * self.twins.labels[self.validation].double() - 1
        scores = head.scores(self.seen[self.validation])
        return torch.nn.functional.softplus(-signs * scores).mean().item()

    def twin_scores(self, head: Head, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        where = self.twins.with_twin(where)
        return head.scores(self.bare[where]), head.scores(self.marked[where]), self.twins.labels[where]

    def measure(self, head: Head, masks: str, penalty: str, **more: Any) -> None:
        """A row of a head on the fold that is tested, and its conflict AUC in every draw of patients."""
        scores = self.twin_scores(head, self.test)
        told = {"l2": self.l2, "chosen": True, "converged": head.converged} | more
        self.rows.append(
            {"masks": masks, "penalty": penalty, **told, **readouts(*scores), **self.further(head)}
        )
        self.draws.append(bootstrapped(*scores, self.counts))

    def choose(
        self, masks: str, penalty: str, settings: Iterable[Row], fit: Callable[[_Part, Row], Head],
        told: Callable[[Head], Row] = lambda head: {}, **more: Any,
    ) -> Row:  # fmt: skip
        """Rows of all settings; the one chosen by the validation fold is marked, and given back."""
        first = len(self.rows)
        for setting in settings:
            inner, head = fit(self.inner, setting), fit(self.train, setting)
            bare, marked, labels = self.twin_scores(inner, self.validation)
            against, along = (
                conflict_auc(-bare, -marked, labels == 0),
                conflict_auc(-marked, -bare, labels == 0),
            )
            self.measure(
                head, masks, penalty, **{**more, **setting, **told(head)},
                validation_auc=min(against, along),
                converged=inner.converged and head.converged,
            )  # fmt: skip
        tried = self.rows[first:]
        best = max(tried, key=lambda row: row["validation_auc"])
        for row in tried:
            row["chosen"] = row is best
        return best

    def know_groups(self) -> None:
        """Rows of the arms that know the group of every image, or guess it, and of the l2 that they choose."""
        seen, labels, groups = self.seen, self.twins.labels, self.twins.groups

        def weighted(part: _Part, l2: float) -> Head:
            return self.fitted(part.where, l2, sample_weight=balanced_weights(groups[part.where]))

        def subsets(where: Tensor, l2: float, name: str, n_subsets: int) -> Head:
            generator = stream(self.seed, name)
            return subset_head(seen[where], labels[where], groups[where], l2, generator, n_subsets)

        def twice(part: _Part, l2: float, upweight: float) -> Head:
            at = part.where
            weights = jtt_weights(self.fitted(at, l2), seen[at], labels[at], upweight)
            return self.fitted(at, l2, sample_weight=weights)

        grid = [{"l2": self.l2 * factor} for factor in L2_FACTORS]
        arms: dict[str, Callable[..., Head]] = {
            "l2 alone": lambda part, l2: self.fitted(part.where, l2),
            "balanced groups": weighted,
            "SUBG": lambda part, l2: subsets(part.where, l2, "SUBG's subset", 1),
            "DFR": lambda part, l2: subsets(part.apart, l2, "DFR's subsets", N_SUBSETS),
            "GroupDRO": lambda part, l2: dro_head(
                seen[part.where], labels[part.where], groups[part.where], l2
            ),
            "JTT": twice,
        }
        for name, arm in arms.items():
            settings = grid
            if name == "JTT":
                settings = [one | {"upweight": w} for one, w in itertools.product(grid, UPWEIGHTS)]
            self.choose("none", name, settings, lambda part, setting, arm=arm: arm(part, **setting))

    def penalties(self, where: Tensor, masks: Tensor) -> dict[str, tuple[Penalty, Penalty | None]]:
        """Finite difference and RRR, on images of the training data at ``where`` (n,) with masks (n, H, W).

        With RRR comes the same penalty by directions that no head is fitted on.
        """
        images = self.twins.dataset(where).images
        filled = self.features(fill(images, masks))
        generator = stream(self.seed, "directions")
        slopes = directional(self.network, images, masks, N_DIRECTIONS + N_FRESH, generator) / self.std
        seen = self.seen[where]
        return {
            "finite-difference": (Penalty((seen - filled)[:, None]), None),
            "rrr": (Penalty(slopes[:, :N_DIRECTIONS], seen), Penalty(slopes[:, N_DIRECTIONS:], seen)),
        }

    def penalised(self, part: _Part, by: Penalty, weight: float, start: Head | None = None) -> Head:
        """The head with a penalty that costs ``weight`` nats of the head before; that head where it costs nothing."""
        scale = by(part.before)
        return self.fitted(
            part.where, self.l2, penalty=by, penalty_weight=weight / scale if scale else 0.0,
            start=start or part.before,
        )  # fmt: skip

    def align(
        self, masks: str, where: Tensor, penalty: str, by: Penalty, fresh: Penalty | None, **more: Any
    ) -> float:
        """Rows of every weight, as :meth:`choose` says, and the weight that is chosen."""
        latest: dict[_Part, Head] = {}

        def fit(part: _Part, setting: Row) -> Head:
            inside = by.of(torch.isin(where, part.where))
            # The search for a weight begins where that for the one before ended.
            latest[part] = self.penalised(part, inside, setting["penalty_weight"], latest.get(part))
            return latest[part]

        def told(head: Head) -> Row:
            return {
                name: one(head) / scale if one and (scale := one(self.train.before)) else math.nan
                for name, one in (("penalty_ratio", by), ("fresh_penalty_ratio", fresh))
            }

        weights = [{"penalty_weight": weight} for weight in WEIGHTS]
        return self.choose(masks, penalty, weights, fit, told, **more)["penalty_weight"]


def frozen_rows(study: Study, data_root: str, seed: int, *, size: int = SIZE) -> list[Row]:
    """Every arm on one fold of one repeat: fold ``seed % 5`` of repeat ``seed // 5``.

    Returns
    -------
    list of dict
        "masks": "none", "true", "lexicon", or "placebo", the lexicon's in the wrong place; in repeats
        whose letters the recorded cases show, "claude", on these cases, and on the same "claude-lexicon", the
        lexicon's verdicts, and "claude-placebo", the real model's masks in the wrong place;
        "penalty": "before", "never saw it" (trained without letters), "l2 alone" (as before, with an l2 that is
        chosen as those of the following); "balanced groups", "SUBG" and "GroupDRO" (these know the groups), "DFR" (knows
        those of one fold, and is fitted on that alone), "JTT" (both its heads with the same l2);
        "finite-difference" or "rrr";
        "l2" of the head; "upweight" of JTT; "penalty_weight", in nats; "validation_auc" and "chosen", by another
        fold's twins where there are settings to choose from;
        "converged": whether every head behind the row is an optimum;
        "n_align" images, of which "n_masked" have a mask; the fields of :func:`letter_coverage`;
        "penalty_ratio", the penalty as a share of what it was before, and, of RRR, "fresh_penalty_ratio", the same by
        directions that the head was not fitted on;
        "curve": whether it is a smaller alignment set, at the weight chosen for the whole one;
        "verdict_sensitivity" and "verdict_specificity"; the fields of :func:`readouts`, of the
        images that have a twin, and of ``study.further``;
        "placebo": the masks in the wrong place that it is held against, of the same cases;
        "se", "gain_se" and "over_placebo_se": standard errors over patients of the conflict AUC, of its gain over
        "before", and of what it has beyond that placebo with the same penalty
    """
    fold = Frozen(study, data_root, seed, size)
    fold.measure(fold.train.before, "none", "before")
    clean = fold.twins.with_twin(fold.train.where)
    fold.measure(fit_head(fold.bare[clean], fold.twins.labels[clean], fold.l2), "none", "never saw it")
    fold.know_groups()
    sources = _sources(fold)
    n_align = len(sources["lexicon"].where)
    order = torch.randperm(n_align, generator=stream(seed, "smaller alignment sets"))
    for name, source in sources.items():
        shown = source.masks.flatten(1).any(1)  # nothing is asked of an image without a mask
        where, letters = source.where[shown], fold.twins.dataset(source.where).spurious_masks
        about = {
            "placebo": source.placebo, **letter_coverage(source.masks, letters),
            **{key: source.quality.get(key) for key in ("verdict_sensitivity", "verdict_specificity")},
        }  # fmt: skip
        amount = {"n_align": len(source.where), "n_masked": len(where)}
        for penalty, (by, fresh) in fold.penalties(where, source.masks[shown]).items():
            weight = fold.align(name, where, penalty, by, fresh, curve=False, **amount, **about)
            if penalty == "rrr" or name not in ("true", "lexicon"):
                continue
            for few in AMOUNTS:
                some = by.of(torch.isin(shown.nonzero()[:, 0], order[:few]))
                fold.measure(
                    fold.penalised(fold.train, some, weight), name, penalty, penalty_weight=weight,
                    n_align=few, n_masked=len(some.changes), curve=True, placebo=source.placebo,
                )  # fmt: skip
    return _with_errors(fold.rows, fold.draws)


def _sources(fold: Frozen) -> dict[str, Masks]:
    """Who puts masks, and on which of the training images."""
    study, train, root = fold.study, fold.train.where, fold.data_root
    task = study.task(data_root=root, image_size=fold.size, train=fold.twins.dataset(train))
    network = to_classifier(fold.network, fold.train.before, fold.mean, fold.std)
    shown = fold.seed < N_FOLDS or not study.redrawn
    recorded = study.task(data_root=root, train=study.recorded_train(root)) if shown else None
    return mask_sources(task, network, fold.seed, train, recorded)


def _with_errors(rows: list[Row], draws: list[Tensor]) -> list[Row]:
    placebo = {
        (row["masks"], row["penalty"]): drawn
        for row, drawn in zip(rows, draws, strict=True)
        if row["masks"] == row.get("placebo") and row["chosen"]
    }
    for row, drawn in zip(rows, draws, strict=True):
        row["se"] = drawn.std().item()
        row["gain_se"] = (drawn - draws[0]).std().item()
        if "placebo" in row:
            beside = placebo[row["placebo"], row["penalty"]]
            row["over_placebo_se"] = (drawn - beside).std().item()
    return rows


@EXPERIMENTS.register("knee_frozen")
def frozen_sweep(seed: int, *, data_root: str) -> list[Row]:
    """:func:`frozen_rows` of real knees; twenty seeds are four repeats of five folds."""
    return frozen_rows(Knees(), data_root, seed)
