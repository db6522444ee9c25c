"""Step 4: the critic puts segments into words, the judge puts words into verdicts.

Critics and judges see what a vision-language model would see and never the
ground-truth mask; the one exception is the simulated critic, which says so in
its name.
"""

from __future__ import annotations

from importlib import resources

from lvlmva_lite.critic.lexicon import LexiconCritic
from lvlmva_lite.critic.text_judge import TextJudge
from lvlmva_lite.critic.types import Case, Critic, Critique, Judge, Verdict, segment_names


def class_description(dataset: str) -> str:
    """The expert's class description that ships for ``dataset``.

    There are "decoy-mnist" and "knee", which name the spurious feature too,
    "skin" and "knee-joint", which name the core feature alone, and
    "skin-bandages", which names the spurious one alone.

    Raises
    ------
    ValueError : no description ships for this data set
    """
    folder = resources.files("lvlmva_lite.critic").joinpath("descriptions")
    name = f"{dataset.replace('-', '_')}.txt"
    if name not in {file.name for file in folder.iterdir()}:
        raise ValueError(f"no class description ships for data set {dataset!r}; pass one")
    file = folder.joinpath(name)
    return " ".join(file.read_text("utf-8").split())


__all__ = [
    "Case",
    "Critic",
    "Critique",
    "Judge",
    "LexiconCritic",
    "TextJudge",
    "Verdict",
    "class_description",
    "segment_names",
]
