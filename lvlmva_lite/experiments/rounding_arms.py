"""How far results spread from nothing but rounding.

Training a convolutional network is chaotic: two runs that differ in the last place of a weight
part within a few epochs, as do two processors or two numbers of threads.  The spread over such
runs is what no seed, no processor and no library can be blamed for.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
from torch import nn

from lvlmva_lite import metrics, tasks
from lvlmva_lite.config import Config
from lvlmva_lite.models import Classifier
from lvlmva_lite.pipeline import Prepared, groups_of, prepare, trained
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.streams import stream
from lvlmva_lite.tasks import Task

Row = dict[str, Any]

N_PERTURBATIONS = 4


def perturb(model: Classifier, seed: int, number: int) -> Classifier:
    """Move every weight, in place, by one unit in the last place, up or down at random.

    Parameters
    ----------
    model : floats of any precision; weights of exactly 0 or 1, which BatchNorm begins with, too
    seed, number : draw the directions; each number from a stream of its own
    """
    generator = stream(seed, f"rounding {number}")
    with torch.no_grad():
        for weight in model.parameters():
            up = torch.rand(weight.shape, generator=generator) < 0.5
            there = torch.where(up, torch.inf, -torch.inf).to(weight)
            weight.copy_(torch.nextafter(weight, there))
    return model


def rounding_rows(task: Task, config: Config, n_perturbations: int = N_PERTURBATIONS) -> list[Row]:
    """One seed, trained and aligned as it is and with so many perturbations of the initial weights.

    Returns
    -------
    list of dict
        "perturbation": 0 for none; "wga_before", "aga_before", "wga_after" and "aga_after"
        alignment by the config's critic, on the split of ``config.evaluate_on``
    """
    train = task.load("train", seed=config.seed)
    rows = []
    prepared: Prepared | None = None
    for number in range(n_perturbations + 1):
        model = task.network(config, train, config.seed)
        if number:
            model = perturb(model, config.seed, number)
        model = trained(task, config, train, model=model)
        if prepared is None:
            prepared = prepare(task, config, model=model)
        else:
            prepared = dataclasses.replace(prepared, model=model).changed()
        aligned = prepared.aligned_by_verdicts(prepared.verdicts())
        rows.append(
            {"perturbation": number}
            | _measured(model, prepared, "before")
            | _measured(aligned, prepared, "after")
        )
    return rows


def _measured(model: nn.Module, prepared: Prepared, when: str) -> Row:
    accuracies = groups_of(model, prepared.test)
    return {
        f"wga_{when}": metrics.worst_group_accuracy(accuracies),
        f"aga_{when}": metrics.average_group_accuracy(accuracies),
    }


def rounding_sweep(dataset: str, seed: int) -> list[Row]:
    """The spread over rounding on phantoms, test split."""
    task = tasks.get(dataset)()
    return rounding_rows(task, task.config(seed=seed))


EXPERIMENTS.register("knee_rounding", partial(rounding_sweep, "knee"))
