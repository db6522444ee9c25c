"""What a model would answer if a thing were not there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lvlmva_lite.fills import fill
from lvlmva_lite.models import predict_proba
from lvlmva_lite.report.finished_run import FinishedRun
from lvlmva_lite.report.leaning import Thing


@dataclass(frozen=True)
class Counterfactual:
    """What filling a thing from its surroundings does to the answers.

    Attributes
    ----------
    n : images that show the thing
    n_changed : of these, how many are answered otherwise
    drop : mean change of the labelled class's probability, in [-1, 1]; negative: the thing held it up
    """

    n: int
    n_changed: int
    drop: float


def without(run: FinishedRun, model: nn.Module, thing: Thing) -> Counterfactual:
    """Fill the segments of a thing, in every case that shows it, and ask the model again."""
    place = {case.case_id: i for i, case in enumerate(run.cases)}
    rows = torch.tensor([place[case_id] for case_id in thing.segments])
    masks = torch.stack(
        [
            torch.isin(run.segment_labels[place[case_id]], torch.tensor(segments))
            for case_id, segments in thing.segments.items()
        ]
    )
    shown = run.train.subset(run.indices[rows]).in_memory()
    before = predict_proba(model, shown.images)
    after = predict_proba(model, fill(shown.images, masks))
    of_class = [chances.gather(1, shown.labels[:, None])[:, 0] for chances in (before, after)]
    return Counterfactual(
        len(rows),
        int((before.argmax(1) != after.argmax(1)).sum()),
        float((of_class[1] - of_class[0]).mean()),
    )
