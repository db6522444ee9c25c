"""Answers of a real vision-language model that ship with the package, with the cases they are about.

An answer is found by what was asked: the images and their seed, the image's
index, its segment map, class and words, and the version of the prompt; not by
the bytes of a picture, which another version of Pillow may pack otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvlmva_lite.critic.endpoint import SettingsError
from lvlmva_lite.critic.types import Case, Critique
from lvlmva_lite.files import write_whole

DEFAULT_PROMPT = "critic-2"
"""Version of the prompt whose answers are taken where none is named."""

RECORDED = resources.files("lvlmva_lite.critic") / "recorded"
"""Folder of the recordings that a run may replay."""

CORE_WORDS = resources.files("lvlmva_lite") / "data" / "recorded_core_words"
"""Folder of those put under words that name only what counts, to see what a critic finds that nobody named."""


class RecordingError(SettingsError):
    """Nothing is recorded about a question, or about another one; the message says what is."""


@dataclass(frozen=True)
class Answer:
    """What a model said about one case.

    Attributes
    ----------
    index : of the image in the training split
    model, date : who answered, and when (YYYY-MM-DD)
    critique : str, word for word
    verdicts : dict, letter of a segment -> its word
    """

    index: int
    model: str
    date: str
    critique: str
    verdicts: dict[str, str]


@dataclass(frozen=True)
class Recording:
    """One set of cases and the answers to them.

    Attributes
    ----------
    source : the images, as in ``Task.source``
    seed : of the run that the cases come from
    network : dict, settings of ``Config`` with which the network was trained whose maps were segmented
    class_names : of the classes, in the order of the labels, as they were put to the model
    description : the expert's words that were put to the model
    n_segments : J
    indices : Tensor, (n,), int64, within the training split
    segment_labels : Tensor, (n, H, W), int64, -1 for none
    attributions : Tensor, (n, H, W), float32, as they were segmented
    class_labels, groups : Tensor, (n,), int64, of those images
    answers : prompt version -> index of the image -> Answer
    image_digests : Tensor, (n, 4, 4), uint8, from :func:`image_digests`; None for images made from the seed
    """

    source: str
    seed: int
    network: dict[str, object]
    class_names: list[str]
    description: str
    n_segments: int
    indices: Tensor
    segment_labels: Tensor
    attributions: Tensor
    class_labels: Tensor
    groups: Tensor
    answers: dict[str, dict[int, Answer]]
    image_digests: Tensor | None = None

    @property
    def name(self) -> str:
        """Source and seed, the name of its folder."""
        return f"{self.source}-{self.seed}"

    def told_of_another_network(self, settings: Mapping[str, object]) -> str:
        """A line that says in which ``settings`` a network differs from the one whose maps were judged.

        Such a network may be aligned with these verdicts, since what a segment
        shows does not depend on who looks; but the evidence in it is the other
        one's.  Empty where none differs.
        """
        other = [
            f"{name} {settings[name]!r} in place of {value!r}"
            for name, value in self.network.items()
            if settings[name] != value
        ]
        if not other:
            return ""
        return (
            f"the recorded segments of {self.name} are those of another network, not of the one trained here "
            f"({', '.join(other)}): what this one goes by elsewhere, nobody was asked about"
        )

    def answered(self, prompt: str, model: str) -> Tensor:
        """Positions (m,) int64 of the cases that ``model`` answered under this version of the prompt.

        Raises
        ------
        RecordingError : there are none
        """
        answers = self.answers.get(prompt, {})
        there = [
            i
            for i, index in enumerate(self.indices.tolist())
            if index in answers and answers[index].model == model
        ]
        if not there:
            known = sorted(
                {(answer.model, version) for version, of in self.answers.items() for answer in of.values()}
            )
            raise RecordingError(
                (
                    f"no answers of {model!r} under prompt {prompt!r} are recorded for {self.name}"
                    if model
                    else "--critic recorded needs --critic-model NAME"
                )
                + "; there are: "
                + ", ".join(f"{who} under {version}" for who, version in known)
                + "; choose by --critic-model and --critic-prompt"
            )
        return torch.tensor(there)


class RecordedCritic:
    """Says what a model said about the very same case.

    Parameters
    ----------
    recording : Recording
    model : who answered
    prompt : version of the critic's prompt
    """

    samples = 1
    concurrency = 1

    def __init__(self, recording: Recording, model: str, prompt: str) -> None:
        self.name = f"recorded ({model}, prompt {prompt})"
        self._recording = recording
        self._answers = {
            int(recording.indices[i]): (i, recording.answers[prompt][int(recording.indices[i])])
            for i in recording.answered(prompt, model).tolist()
        }

    def criticise(self, case: Case, sample: int = 0) -> Critique:
        """The recorded critique.

        Raises
        ------
        RecordingError : the case is not, in every respect, one that was answered
        """
        recording = self._recording
        source, _, index = case.case_id.rpartition("-")
        position, answer = self._answers.get(int(index) if index.isdigit() else -1, (None, None))
        if source != recording.source or answer is None:
            raise RecordingError(f"case {case.case_id} is not among the recorded cases of {recording.name}")
        for what, same in (
            ("segments", torch.equal(case.segment_labels, recording.segment_labels[position])),
            ("words", case.description.split() == recording.description.split()),
            ("class", case.class_name == recording.class_names[recording.class_labels[position]]),
        ):
            if not same:
                raise RecordingError(
                    f"case {case.case_id} was recorded with other {what}; answers to other questions are not used"
                )
        return Critique(case.case_id, self.name, answer.critique, sample)


def image_digests(images: Tensor) -> Tensor:
    """What images look like from afar, by which they are known again and cannot be drawn.

    Parameters
    ----------
    images : (n, C, H, W) float32 in [0, 1], H and W at least 4

    Returns
    -------
    Tensor, (n, 4, 4), uint8
        grey levels: means over the channels and the cells of a grid of 4 x 4, which
        hardly depend on the size to which an image was brought, nor on how
    """
    means = torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 4)[:, 0]
    return (means * 255).round().to(torch.uint8)


def recorded_sets(home: Traversable = RECORDED) -> list[tuple[str, int]]:
    """Source and seed of every recording in a folder of those that ship with the package, in order."""
    return [(about["source"], about["seed"]) for _, about in _folders(home)]


@cache
def find(source: str, seed: int, home: Traversable = RECORDED) -> Recording:
    """The recording of these images and this seed.

    Parameters
    ----------
    source, seed : see :class:`Recording`
    home : RECORDED or CORE_WORDS

    Raises
    ------
    RecordingError : there is none; the message says which there are
    """
    for folder, about in _folders(home):
        if (about["source"], about["seed"]) == (source, seed):
            return _read(folder, about)
    raise RecordingError(
        f"no answers are recorded for {source} with seed {seed}; there are: "
        + ", ".join(f"{name} with seed {of}" for name, of in recorded_sets(home))
    )


def shipped_answers(case_id: str | None = None) -> Iterator[tuple[Recording, str, Answer]]:
    """Every answer that ships, or those about one case: its recording, the prompt's version, the answer.

    Parameters
    ----------
    case_id : as in ``Case.case_id``, for instance "knee-phantom-42"; None for all
    """
    for source, seed in recorded_sets():
        recording = find(source, seed)
        for prompt, answers in recording.answers.items():
            for index, answer in answers.items():
                if case_id in (None, f"{source}-{index}"):
                    yield recording, prompt, answer


def write(folder: Path, recording: Recording) -> None:
    """Write a recording into a new folder, in the form in which :func:`find` reads it."""
    folder.mkdir(parents=True)
    digests = {} if recording.image_digests is None else {"image_digests": recording.image_digests.numpy()}
    np.savez_compressed(
        folder / "cases.npz",
        **digests,
        indices=recording.indices.numpy(),
        segment_labels=recording.segment_labels.numpy().astype(np.int8),
        attributions=recording.attributions.numpy().astype(np.float16),
        class_labels=recording.class_labels.numpy().astype(np.int8),
        groups=recording.groups.numpy().astype(np.int8),
    )
    for prompt, answers in recording.answers.items():
        lines = (json.dumps(vars(answer), ensure_ascii=False) + "\n" for answer in answers.values())
        write_whole(folder / f"{prompt}.jsonl", "".join(lines))
    # Last: a folder without it, as an interruption leaves one, is no recording.
    about = {
        name: getattr(recording, name)
        for name in ("source", "seed", "network", "n_segments", "class_names", "description")
    }
    write_whole(folder / "about.json", json.dumps(about, indent=1) + "\n")


def _folders(home: Traversable) -> Iterator[tuple[Traversable, dict]]:
    for folder in sorted(home.iterdir(), key=lambda folder: folder.name):
        about = folder.joinpath("about.json")
        if about.is_file():
            yield folder, json.loads(about.read_text("utf-8"))


def _read(folder: Traversable, about: dict) -> Recording:
    with folder.joinpath("cases.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        whole = {
            name: torch.from_numpy(arrays[name].astype(np.int64))
            for name in ("indices", "segment_labels", "class_labels", "groups")
        }
        attributions = torch.from_numpy(arrays["attributions"].astype(np.float32))
        digests = torch.from_numpy(arrays["image_digests"]) if "image_digests" in arrays else None
    answers = {
        file.name.removesuffix(".jsonl"): {
            row["index"]: Answer(**row) for row in map(json.loads, file.read_text("utf-8").splitlines())
        }
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".jsonl")
    }
    return Recording(**about, **whole, attributions=attributions, answers=answers, image_digests=digests)
