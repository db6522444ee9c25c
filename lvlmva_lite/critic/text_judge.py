"""The offline judge: reads what a critic concluded about each segment.

It reads only the critique's text, as the method asks of the judge h.  Lines
that give a verdict outright ("Segment A is spurious.") decide, and where two
of them contradict each other the segment is undecided.  Where there is none,
the judge goes by the prose, with a logistic regression on words in place of a
language model.

What it was learnt from: the short examples of ``judge_examples.yaml``, and the
recorded answers ``LEARNT_FROM``, in which a real model (Anthropic's Claude,
asked in November 2026, prompt critic-2) wrote about 60 drawn skin lesions.
Words of the case at hand (lesion, letter, stroke) say little about the next
data set, so that the judge puts in their place what the critic's own second
step makes of them: part of the class, dismissed, or surroundings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING

import yaml

from lvlmva_lite.critic import recordings
from lvlmva_lite.critic.types import KINDS, Critique, Verdict, segment_names
from lvlmva_lite.critic.verdicts import pair_of_line
from lvlmva_lite.threads import late_import

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

LEARNT_FROM = ("skin-phantom", 0)
"""Source and seed of the recording whose texts the judge learns from."""

_TOKEN = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")
_STEP = re.compile(r"[\s*#]*(\d)[.)]")
_SENTENCE = re.compile(r"(?<=[.!?;])\s")
_CURLY = str.maketrans(dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02", '"'))
"""Quotation marks of other hands, each as the straight one."""

_QUOTATION = re.compile(r'(?<![0-9])"[^"]*"')
"""A mark straight after a digit opens none: it stands for inches."""

_RANGE = re.compile(
    r"\b([Ss]egments?\s+(?:from\s+)?)([A-Z])\s*(?:to|through|until|-|\N{EN DASH}|\N{EM DASH})\s*([A-Z])\b"
)
"""Segments named by the first and the last of them."""

_JOINTS = frozenset((",", "and", "&", "/", "segment", "segments"))
_AFTER_A_NAME = frozenset((
    "above", "along", "alone", "also", "and", "around", "away", "at", "below", "beside", "both", "but",
    "cover", "from", "has", "hold", "in", "inside", "lie", "mainly", "mostly", "on", "only", "or",
    "over", "partly", "rest", "show", "sit", "to", "too", "with",
))  # fmt: skip
"""Words before which a lone "A" or "I" names a segment; before most others it is an article or a pronoun."""

_COMMON = frozenset(
    re.findall(
        r"\w+",
        """
        a all an and any are as at be belong belongs both but by class count counts dismiss dismissed do
        does expert for from here in into is it its matter matters mean means no not nothing of on one
        only or other others see seen that the there this to visible what which with words
        """,
    )
)
_ROLES = (
    (re.compile(r"surround|background|bare|neither|empty"), "SURROUNDINGS"),
    (re.compile(r"\bno (?:letter|marker|square|sticker|patch|thing)\b"), ""),
    (re.compile(r"dismiss|nothing|foreign|not\b|no part|spurious"), "DISMISSED"),
    (re.compile(r"belong|count|matter|show|class"), "CLASS"),
    (re.compile(r"\b(?:frame|letter|marker|ruler|sticker)\b"), "DISMISSED"),
)
"""What the words of a sentence of the second step stand for, by the first of these that occurs in it.

The foreign things are those that the prompt names."""

_NOT = frozenset(("not", "never", "hardly", "neither", "nor", "t", "cannot", "scarcely"))
"""Words that deny; "t" is the end of "isn't"."""

_NO_WORD_OF_IT = _NOT | {"nobody", "none", "wrong", "false", "untrue", "doubt", "doubtful"}
"""Words before a segment's name that deny what the rest of the sentence says of it."""

_OPEN = frozenset(("if", "whether", "unless"))
"""Words that leave a sentence's verdict open."""

_OWN_WEIGHT = 5.0
"""Of a short example against a recorded one: a person wrote it to be heeded."""

_SURE = 0.5
"""Least probability of a kind for the prose to settle it."""


def default_examples() -> list[dict]:
    """The short examples that ship with the package: dicts with "text" (str) and "kind" (of ``KINDS``)."""
    text = resources.files("lvlmva_lite.critic").joinpath("judge_examples.yaml").read_text("utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def kind_of_example(example: dict) -> str:
    """The kind that an example gives.

    Raises
    ------
    ValueError : it gives none, or one that there is not
    """
    if "kind" not in example and "spurious" in example:
        raise ValueError(
            "a judge's example has 'kind' in place of 'spurious': write 'kind: spurious' for "
            f"'spurious: true', and 'kind: relevant' or 'kind: background' for 'spurious: false'; got {example}"
        )
    if example.get("kind") not in KINDS or not isinstance(example.get("text"), str):
        raise ValueError(
            f"a judge's example needs 'text' and 'kind', one of {', '.join(KINDS)}; got {example}"
        )
    return example["kind"]


def outright(text: str, names: Sequence[str]) -> dict[str, str]:
    """The verdicts that a critique states outright, by segment; "undecided" where it contradicts itself.

    Parameters
    ----------
    text : without quotations
    names : the segments there are
    """
    ruled: dict[str, str] = {}
    for line in text.splitlines():
        pair = pair_of_line(line)
        for said, kind in [((pair[0],), pair[1])] if pair else map(_statement, _SENTENCE.split(line)):
            for name in said:
                if name in names and kind:
                    ruled[name] = kind if ruled.get(name, kind) == kind else "undecided"
    return ruled


def text_by_segment(text: str, names: Sequence[str], *, as_written: bool = False) -> dict[str, str]:
    """What a critique says about each segment it names, but for verdicts.

    A clause belongs to the segments that it begins with, else to those that
    its sentence names, else to those of the clause before it on the same
    line; one on "the others" to those that the line has not named.  Where the
    critique has the six steps of the prompt, only steps 3 to 5 are read, and
    words that step 2 explains become CLASS, DISMISSED or SURROUNDINGS.

    Parameters
    ----------
    text : quotations (the expert's words) are left out
    names : the segments there are; a name is written in capitals
    as_written : quotations stay, and no word stands for another
    """
    steps: dict[int, list[str]] = {}
    step = 0
    for line in (text if as_written else _unquoted(text)).splitlines():
        if numbered := _STEP.match(line):
            step, line = int(numbered[1]), line[numbered.end() :]
        steps.setdefault(step, []).append(line)
    roles = {} if as_written else _roles(" ".join(steps.get(2, ())))
    in_steps = 3 in steps or 4 in steps or 5 in steps
    lines = [line for n in ((3, 4, 5) if in_steps else sorted(steps)) for line in steps.get(n, ())]
    said: dict[str, list[str]] = {}
    for line in lines:
        for about, words in _clauses(line, names):
            for name in about:
                said.setdefault(name, []).extend(roles.get(word, word) for word in words)
    return {name: " ".join(words) for name, words in said.items()}


class TextJudge:
    """Rules on each segment from the words of a critique alone. Derived in chapter 5.

    Parameters
    ----------
    examples : list of {"text": str, "kind": str}, default those that ship
        with the package; what a person makes of a text about one segment
    recorded : recorded answers of a real critic that are learnt besides, with
        the verdicts that it drew from them; default those of ``LEARNT_FROM``

    Raises
    ------
    ValueError : an example without a text or a kind; examples of one kind only
    """

    name = "text"
    concurrency = 1

    def __init__(
        self, examples: list[dict] | None = None, *, recorded: Iterable[recordings.Answer] | None = None
    ) -> None:
        self._examples = default_examples() if examples is None else examples
        self._recorded = recorded if recorded is None else list(recorded)
        if len({kind_of_example(example) for example in self._examples}) < 2:
            raise ValueError("the judge's examples must hold two kinds of verdict or more")

    @cached_property
    def _classifier(self) -> Pipeline:
        """Fitted when first needed: most critiques state their verdicts outright, and scikit-learn takes seconds."""
        text, linear_model, pipeline = (
            late_import(f"sklearn.{name}")
            for name in ("feature_extraction.text", "linear_model", "pipeline")
        )
        recorded = self._recorded
        if recorded is None:
            recorded = recordings.find(*LEARNT_FROM).answers[recordings.DEFAULT_PROMPT].values()
        kinds = [kind_of_example(example) for example in self._examples]
        texts = [" ".join(_TOKEN.findall(example["text"].lower())) for example in self._examples]
        weights = [_OWN_WEIGHT] * len(texts)
        for answer in recorded:
            said = text_by_segment(answer.critique, tuple(answer.verdicts))
            for name, kind in answer.verdicts.items():
                texts.append(said.get(name, ""))
                kinds.append(kind)
                weights.append(1.0)
        return pipeline.make_pipeline(
            # Short words such as "not" carry the verdict: keep every token.
            text.TfidfVectorizer(
                ngram_range=(1, 2), token_pattern=r"\S+", lowercase=False, sublinear_tf=True
            ),
            linear_model.LogisticRegression(C=30.0, class_weight="balanced", max_iter=1000),
        ).fit(texts, kinds, logisticregression__sample_weight=weights)

    def judge(self, critique: Critique, n_segments: int) -> Verdict:
        """The kind of each segment; undecided where the critique does not speak of it or leaves it open."""
        names = segment_names(n_segments)
        ruled = outright(_unquoted(critique.text), names)
        if ruled.keys() >= set(names):  # all is said
            return Verdict(critique.case_id, self.name, tuple(ruled[name] for name in names))
        said = text_by_segment(critique.text, names)
        for name in names:
            if name not in ruled and name in said:
                kind, chance = max(self._chances(said[name]).items(), key=lambda pair: pair[1])
                ruled[name] = kind if chance >= _SURE and not _denied(kind, said[name]) else "undecided"
        return Verdict(critique.case_id, self.name, tuple(ruled.get(name, "undecided") for name in names))

    def chances(self, critique: Critique, n_segments: int) -> list[dict[str, float]]:
        """What the prose about each segment leads one to expect, whatever the critique's verdict lines say.

        Returns
        -------
        list of J dicts
            kind -> chance in [0, 1], which add up to 1; empty where the prose does not speak of the segment
        """
        names = segment_names(n_segments)
        said = text_by_segment(critique.text, names)
        return [self._chances(said[name]) if name in said else {} for name in names]

    def _chances(self, text: str) -> dict[str, float]:
        (chances,) = self._classifier.predict_proba([text])
        return dict(zip(map(str, self._classifier.classes_), map(float, chances), strict=True))


def _denied(kind: str, text: str) -> bool:
    """Whether a text says that something is *not* of this kind, which says little of what it is."""
    words = text.split()
    return any(word == kind and _NOT.intersection(words[max(i - 3, 0) : i]) for i, word in enumerate(words))


def _unquoted(text: str) -> str:
    """A text without what stands in quotes, and with every segment of a range named.

    A quote that its line does not close is a plain character, as is one straight after a digit, where none is
    open: 1/4".
    """
    lines = text.translate(_CURLY).splitlines()
    return "\n".join(_RANGE.sub(_spelt_out, _QUOTATION.sub(" ", line).replace('"', " ")) for line in lines)


def _spelt_out(named: re.Match) -> str:
    """ "Segments A to C" as "Segments A, B, C", whichever end is named first."""
    first, last = sorted(map(ord, named.group(2, 3)))
    return named[1] + ", ".join(map(chr, range(first, last + 1)))


def _statement(sentence: str) -> tuple[tuple[str, ...], str]:
    """The segments that a sentence gives a verdict on, and the verdict; () if it gives none.

    "Segment A is spurious." and "Segments A and B are background.", or a
    sentence on one segment that ends in ", it is relevant."  One that ends so
    but denies it ("I do not say of A, it is ...") or leaves it open ("if it
    is relevant.") has the verdict "": it speaks of one, and gives none.
    """
    words = _TOKEN.findall(sentence.rstrip(" \t.!;*_"))
    if len(words) < 3 or words[-1].lower() not in KINDS or words[-2] not in ("is", "are"):
        return (), ""
    named = [word for before, word in pairwise(words) if word.isupper() and before.lower() in _JOINTS]
    subject = words[-3]
    about = tuple(dict.fromkeys(named))
    told = subject in about and all(w in about or w.lower() in _JOINTS for w in words[:-2])
    if told:
        return about, words[-1].lower()
    if subject == "it" and len(about) == 1:
        said = [word.lower() for word in words]
        if _OPEN.intersection(said) or _NO_WORD_OF_IT.intersection(said[: words.index(about[0])]):
            return about, ""
        if words[-4] == ",":
            return about, said[-1]
    return (), ""


def _roles(explanation: str) -> dict[str, str]:
    """Which words of the second step stand for the class, for what is dismissed, for surroundings."""
    found: dict[str, set[str]] = {}
    for part in re.split(r"[.!?;]\s|,? but ", explanation.lower()):
        role = next((role for pattern, role in _ROLES if pattern.search(part)), "")
        for word in re.findall(r"[a-z]+", part) if role else ():
            if word not in _COMMON:
                found.setdefault(word, set()).add(role)
    return {word: next(iter(roles)) for word, roles in found.items() if len(roles) == 1}


def _named(words: Sequence[str], i: int, names: Sequence[str]) -> bool:
    """Whether word i of a sentence is a segment's name."""
    if words[i] not in names:
        return False
    if words[i] not in ("A", "I") or (i and words[i - 1].lower() in _JOINTS) or i + 1 == len(words):
        return True
    after = words[i + 1]
    verb = after.islower() and (after in _AFTER_A_NAME or after.endswith(("s", "ly")))
    return not after.isalpha() or after in names or verb


def _clauses(line: str, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(segments, words in small letters) of each clause of a line, but for verdicts."""
    names = frozenset(names)
    about: tuple[str, ...] = ()
    seen: dict[str, None] = {}
    for sentence in _SENTENCE.split(line):
        if _statement(sentence)[0]:
            continue
        words = _TOKEN.findall(sentence)
        begun: list[tuple[tuple[str, ...], list[str]]] = [(about, [])]
        found = False
        i, at_start, before = 0, True, 0
        while i < len(words):
            word = words[i]
            if _named(words, i, names) and (at_start or words[i - 1].lower() in _JOINTS - {","}):
                group = {}
                while i < len(words) and (words[i] in names or words[i].lower() in _JOINTS):
                    if words[i] in names:
                        group[words[i]] = None
                    i += 1
                about, found = tuple(group), True
                seen |= group
                begun.append((about, []))
                at_start = False
                continue
            if word.lower() in ("others", "rest", "remaining") and not found:
                about, found = tuple(name for name in sorted(names) if name not in seen), True
                begun.append((about, []))
            if word in ",;:.(":
                at_start, before = True, 0
            else:
                # "But B ..." and "the segment B ..." begin with B, too.
                before += 1
                at_start = at_start and before <= 2
            begun[-1][1].append(word.lower())
            i += 1
        inside = {word: None for i, word in enumerate(words) if not found and _named(words, i, names)}
        if inside:
            about = tuple(inside)
            seen |= inside
            begun = [(about, [word.lower() for word in words if word not in inside])]
        yield from ((who, said) for who, said in begun if who and said)
