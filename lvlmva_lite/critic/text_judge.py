"""The offline judge: learns from a few examples how critics phrase a verdict.

It reads only the critique's text, as the method asks of the judge h, and
learns from pairs (critic text, human verdict); the learner is a logistic
regression on word n-grams in place of a language model.
"""

from __future__ import annotations

import re
from importlib import resources

import yaml
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from lvlmva_lite.critic.types import Critique, Verdict, segment_names

_MENTION = re.compile(r"\bsegment ([A-Z]{1,2})\b", re.IGNORECASE)


def default_examples() -> list[dict]:
    """The pairs that ship with the package: dicts with "text" (str) and "spurious" (bool)."""
    text = resources.files("lvlmva_lite.critic").joinpath("judge_examples.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def text_by_segment(text: str) -> dict[str, str]:
    """What a critique says about each segment it names.

    A sentence belongs to the segments that it names, else to those of the
    sentence before it on the same line.  Quotations (the expert's words) are
    left out: the judge is to rule on what the critic says.
    """
    said: dict[str, list[str]] = {}
    for line in re.sub(r'"[^"]*"', "", text).splitlines():
        about: list[str] = []
        for sentence in re.split(r"(?<=[.!?])\s+", line):
            about = [name.upper() for name in _MENTION.findall(sentence)] or about
            for name in dict.fromkeys(about):
                said.setdefault(name, []).append(sentence)
    return {name: " ".join(sentences) for name, sentences in said.items()}


class TextJudge:
    """Rules on each segment from the words of a critique alone.

    Parameters
    ----------
    examples : list of {"text": str, "spurious": bool}, default those that ship
        with the package

    Raises
    ------
    ValueError : the examples do not hold both verdicts
    """

    name = "text"
    concurrency = 1

    def __init__(self, examples: list[dict] | None = None) -> None:
        examples = default_examples() if examples is None else examples
        verdicts = [bool(example["spurious"]) for example in examples]
        if len(set(verdicts)) < 2:
            raise ValueError("the judge's examples must hold both verdicts, spurious and not")
        self._classifier = make_pipeline(
            # Short words such as "not" carry the verdict: keep every token.
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", preprocessor=_without_names),
            LogisticRegression(C=100.0),
        ).fit([example["text"] for example in examples], verdicts)

    def judge(self, critique: Critique, n_segments: int) -> Verdict:
        """True (spurious) or False for each segment the critique speaks of, None for the others."""
        said = text_by_segment(critique.text)
        names = segment_names(n_segments)
        known = [name for name in names if name in said]
        ruled = dict.fromkeys(names)
        if known:
            predicted = self._classifier.predict([said[name] for name in known])
            ruled.update(zip(known, map(bool, predicted), strict=True))
        return Verdict(critique.case_id, self.name, tuple(ruled.values()))


def _without_names(text: str) -> str:
    return _MENTION.sub("segment", text).lower()
