"""A run's folder, read back: its settings, numbers, verdicts, images and networks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.registry import TASKS
from lvlmva_lite.report.leaning import JudgedCase, judged_cases
from lvlmva_lite.tasks import Task

LOOKED_ONLY = "look"
"""The method that changes no network."""

RULED = "ruled.json"
"""In the run's folder: name of a candidate -> "accepted" or "refused"."""


@dataclass(frozen=True)
class FinishedRun:
    """What ``lvlmva run`` or ``lvlmva align`` left, with the images it was about.

    Attributes
    ----------
    path : its folder
    task, config, method : as it was run
    results : dict, ``results.json``
    train : ShortcutDataset, its training images
    indices : Tensor, (N,), int64, the alignment set within them
    segment_labels : Tensor, (N, H, W), int64, -1 for none
    cases : list of N, what was judged
    ruled : name of a candidate -> "accepted" or "refused", as the expert said before
    """

    path: Path
    task: Task
    config: Config
    method: str
    results: dict[str, Any]
    train: ShortcutDataset
    indices: Tensor
    segment_labels: Tensor
    cases: list[JudgedCase]
    ruled: dict[str, str] = field(default_factory=dict)

    @property
    def aligned(self) -> bool:
        """Whether it left a network other than the one before: not one only looked at, nor one refused."""
        return self.method != LOOKED_ONLY and not self.results.get("refused", False)

    def network(self, when: str) -> nn.Module:
        """The network "before" or "after", in eval mode.

        Raises
        ------
        ConfigError : the run is from before these weights were kept
        """
        name = {"before": "before", "after": "aligned"}[when]
        own, ours = self.path / f"{name}.pt", self.path / f"{name}.safetensors"
        if own.is_file():  # the reader's own class
            return self.task.network(
                replace(self.config, weights=str(own)), self.train, self.config.seed
            ).eval()
        if not ours.is_file():
            raise ConfigError(f"{self.path} holds no {ours.name}; run it anew, in a new folder")
        network = self.task.network(self.config, self.train, self.config.seed)
        device = next(network.parameters()).device
        network.load_state_dict(load_file(ours, device=str(device)))
        return network.eval()


def read_run(path: Path) -> FinishedRun:
    """Read a run's folder; the images come from where the run had them.

    Raises
    ------
    ConfigError : it holds no finished run, one that asked no critic or is of another version of the
        package, or its images are others now
    """
    path = Path(path)
    settings, results = (_json(path, name) for name in ("config.json", "results.json"))
    try:
        kind = TASKS.get(settings["dataset"])
        task = kind(**{one.name: settings[one.name] for one in fields(kind) if one.name in settings})
        # A setting that did not exist then has its default, which is what was done then.
        given = {one.name: settings[one.name] for one in fields(Config) if one.name in settings}
        config = Config(**given | {"critic_settings": CriticSettings(**given["critic_settings"])})
    except (KeyError, TypeError) as error:
        raise _of_another_version(path / "config.json", error) from None
    verdicts = _lines(path / "verdicts.jsonl")
    if not verdicts:
        raise ConfigError(
            f"{path} asked no critic (method {settings['method']}); report a run of lvlm-va, or of look"
        )
    with np.load(path / "masks.npz", allow_pickle=False) as arrays:
        indices, labels, shares = (
            torch.from_numpy(arrays[name].astype(kind))
            for name, kind in (
                ("indices", np.int64), ("segment_labels", np.int64), ("segment_shares", np.float64)
            )
        )  # fmt: skip
    train = task.load("train", seed=config.seed)
    try:
        ids, kinds = zip(*((verdict["case_id"], verdict["kinds"]) for verdict in verdicts), strict=True)
    except (KeyError, TypeError) as error:
        raise _of_another_version(path / "verdicts.jsonl", error) from None
    if int(indices.max()) >= len(train) or list(ids) != [
        f"{train.name}-{index}" for index in indices.tolist()
    ]:
        raise ConfigError(
            f"the images of {task.name} are no longer those of {path}; put them back, or run it anew"
        )
    names = [train.class_names[label] for label in train.labels[indices].tolist()]
    cases = judged_cases(
        list(ids), names, list(kinds), shares.tolist(),
        ((critique["case_id"], critique["text"]) for critique in _lines(path / "critiques.jsonl")),
    )  # fmt: skip
    ruled = _json(path, RULED) if (path / RULED).is_file() else {}
    return FinishedRun(
        path, task, config, settings["method"], results, train, indices, labels, cases, ruled
    )


def _of_another_version(file: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{file} is of another version of this package ({error}); run it anew")


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((path / name).read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} holds no finished run: there is no {name}; give the folder of `lvlmva run --out`"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path / name} cannot be read: {error}") from error


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    try:
        return [json.loads(line) for line in file.read_text("utf-8").splitlines() if line]
    except ValueError as error:
        raise ConfigError(f"{file} is damaged: {error}") from error
