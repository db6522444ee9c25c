"""The folder that a run of the command line writes, safe to interrupt."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.critic import Critique
from lvlmva_lite.methods import MethodResult
from lvlmva_lite.pipeline import Result


class RunFolder:
    """Claims a folder for one run, or takes up an interrupted run of the same settings.

    ``config.json`` stands there from the start, ``critiques.jsonl`` grows by a
    line per answer, and ``results.json`` is written last: its presence says
    that the run is complete.

    Parameters
    ----------
    path : folder, made if need be
    config : settings of the run

    Raises
    ------
    ConfigError : the folder holds another run, or cannot be made
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = Path(path)
        settings = asdict(config) | {"description": config.expert_description}
        config_file = self.path / "config.json"
        another = f"{self.path} holds another run; give --out a new folder, or delete this one"
        if (self.path / "results.json").exists():
            raise ConfigError(another)
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file; give --out a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if config_file.exists():
                if json.loads(config_file.read_text("utf-8")) != settings:
                    raise ConfigError(
                        f"{self.path} holds another run, unfinished and with other settings; "
                        "give --out a new folder, or delete this one"
                    )
            elif any(self.path.iterdir()):
                raise ConfigError(f"{self.path} is not empty; give --out a new folder")
            else:
                config_file.write_text(json.dumps(settings, indent=1) + "\n", "utf-8")
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError(f"cannot use {self.path} as --out: {error}") from error

    def known_critiques(self) -> dict[tuple[str, int], Critique]:
        """Critiques there already, by case id and sample; a line cut short by an interruption is dropped."""
        file = self.path / "critiques.jsonl"
        known = {}
        if file.exists():
            whole, _, cut = file.read_bytes().rpartition(b"\n")
            if cut:
                file.write_bytes(whole + b"\n" if whole else b"")
            for line in whole.splitlines():
                fields = json.loads(line)
                critique = Critique(**fields | {"asked_about": tuple(fields["asked_about"])})
                known[critique.case_id, critique.sample] = critique
        return known

    def add_critique(self, critique: Critique) -> None:
        """Append one answer, on disk when this returns."""
        with (self.path / "critiques.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(critique)) + "\n")

    def finish(self, result: Result | MethodResult) -> None:
        """Write ``masks.npz``, ``verdicts.jsonl``, ``aligned.safetensors`` and ``results.json``."""
        segments = result.segments
        np.savez_compressed(
            self.path / "masks.npz",
            indices=result.indices.numpy(),
            masks=result.masks.numpy(),
            segment_labels=segments.labels.numpy().astype(np.int8),
            segment_shares=segments.shares.numpy(),
        )
        with (self.path / "verdicts.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(verdict)) + "\n" for verdict in result.verdicts)
        model = result.models["lvlm_va" if isinstance(result, Result) else "after"]
        # Convolutions lie channels-last in memory, which the file format does not know.
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(weights, self.path / "aligned.safetensors")
        (self.path / "results.json").write_text(json.dumps(result.summary(), indent=1) + "\n", "utf-8")
