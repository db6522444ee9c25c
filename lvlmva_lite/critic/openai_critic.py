"""A vision-language model as the critic, a language model as the judge.

Both put a question to ``ask`` and make something of the answer.  ``ask`` is
:meth:`ChatClient.ask` for a live server or :meth:`AnswerStore.replay` for
recorded answers; neither class knows which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lvlmva_lite.critic import prompts
from lvlmva_lite.critic.answers import Answer, Request, Unusable
from lvlmva_lite.critic.panels import render_panels
from lvlmva_lite.critic.text_judge import default_examples
from lvlmva_lite.critic.types import Case, Critique, Verdict, segment_names
from lvlmva_lite.critic.verdicts import MalformedAnswer, parse_verdicts


class _SegmentVerdict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    segment: str
    verdict: Literal["relevant", "spurious", "background", "undecided"]


class VerdictList(BaseModel):
    """What a judge is asked to return where the server knows structured output."""

    model_config = ConfigDict(extra="forbid")
    verdicts: list[_SegmentVerdict]


@dataclass(frozen=True)
class AnswerSettings:
    """What decides a model's answers beside its name and the prompt; part of each request's key.

    Attributes
    ----------
    samples : int >= 1, answers of the critic to each case
    temperature : float or None for the server's own default
    max_answer_tokens : int >= 1, after which an answer is cut
    reasoning_effort : "low", "medium", ... for models that reason; empty: the server's own
    extra_body : a JSON object of further fields that the server knows; empty: none
    """

    samples: int = 1
    temperature: float | None = None
    max_answer_tokens: int = 2048
    reasoning_effort: str = ""
    extra_body: str = ""

    def parameters(self, **more: object) -> dict[str, object]:
        """As parameters of a request; what is not set is left out."""
        own: dict[str, object] = {"max_answer_tokens": self.max_answer_tokens}
        if self.temperature is not None:
            own["temperature"] = self.temperature
        if self.reasoning_effort:
            own["reasoning_effort"] = self.reasoning_effort
        if self.extra_body:
            own["extra_body"] = json.loads(self.extra_body)
        return own | more


def critic_request(
    case: Case, model: str, settings: AnswerSettings | None = None, sample: int = 0
) -> Request:
    """What a critic is asked about a case: the key under which its answer is recorded.

    Rendering the panels is part of it, so the images' bytes are part of the key.
    """
    settings = settings or AnswerSettings()
    return Request(
        "critic", model, prompts.critic_version(),
        prompts.critic_messages(case, render_panels(case)),
        settings.parameters(sample=sample, ask=0),
        case.case_id, lambda answer: critique_fault(answer, prompts.named_segments(case)),
    )  # fmt: skip


def judge_request(
    critique: str,
    names: Sequence[str],
    model: str,
    settings: AnswerSettings | None = None,
    examples: Sequence[dict] | None = None,
    case_id: str = "",
) -> Request:
    """What a judge is asked about a critique: the key under which its answer is recorded."""
    settings = settings or AnswerSettings()
    examples = default_examples() if examples is None else examples
    return Request(
        "judge", model, prompts.judge_version(),
        prompts.judge_messages(critique, names, examples),
        settings.parameters(ask=0, structured="verdicts"),
        case_id, lambda answer: verdict_fault(answer, names),
    )  # fmt: skip


def asked_again(request: Request, answer: Answer, complaint: str, names: Sequence[str]) -> Request:
    """The one second request after an answer that cannot be used."""
    return Request(
        request.kind, request.model, request.prompt_version,
        prompts.ask_again(request.messages, answer.said, complaint, names),
        {**request.parameters, "ask": 1},
        request.case_id, request.fault, last=True,
    )  # fmt: skip


_BLIND = re.compile(
    r"(?:can(?:no|')t|can not|unable to|not able to|lack the ability to)(?: \w+)?"
    r" (?:see|view|access|open|display|process|analy[sz]e|interpret)"
    r"(?: (?:any|the|an?|of|your|this|that|these|those|actual|attached|provided|uploaded)){0,3} (?:images?|pictures?)"
    r"|no (?:images?|pictures?) (?:was|were|has been|have been|is|are) (?:\w+ )?(?:provided|attached|included|uploaded)"
    r"|(?:do not|don't) (?:see|have access to) (?:any|the|your) (?:\w+ )?(?:images?|pictures?)"
    r"|as a(?:n? \w+)? text[- ](?:only|based)",
    re.IGNORECASE,
)


def critique_fault(answer: Answer, names: Sequence[str]) -> Unusable | None:
    """Why a critique of the segments ``names`` cannot be used; None if it can.

    A critique that was cut off is whole if every segment has its verdict, as
    step 6 asks for it.
    """
    if nothing := answer.nothing:
        return nothing
    said = answer.said.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if _BLIND.search(said[:500]):
        return Unusable("blind", "the model says that it sees no image")
    if answer.finish_reason == "length":
        plain = re.sub(r"[*_`\"']", "", said)
        missing = [n for n in names if not re.search(rf"\bsegment {n} is\b", plain, re.IGNORECASE)]
        if missing:
            return Unusable("cut", f"it was cut off before its verdict on segment {missing[0]}")
    return None


def verdict_fault(answer: Answer, names: Sequence[str]) -> Unusable | None:
    """Why a judge's answer on the segments ``names`` cannot be used; None if it can."""
    if nothing := answer.nothing:
        return nothing
    if answer.finish_reason == "length":
        # Whole verdicts in it may be a quotation, its own cut off.
        return Unusable("cut", "it was cut off")
    try:
        parse_verdicts(answer.said, names)
    except MalformedAnswer as error:
        return Unusable("malformed", str(error))
    return None


def answered(
    ask: Callable[[Request], Answer], request: Request, names: Sequence[str]
) -> tuple[Answer, Unusable | None]:
    """An answer, asked for again once where that may help, and why it cannot be used all the same."""
    answer = ask(request)
    fault = request.fault(answer)
    # The client itself asks again for what was cut, with more room; nothing gives a model eyes.
    if fault and fault.kind not in ("cut", "blind") and answer.finish_reason != "length":
        request = asked_again(request, answer, fault.words, names)
        answer = ask(request)
        fault = request.fault(answer)
    return answer, fault


class OpenAICritic:
    """A vision-language model that looks at a case's panels and argues in free text.

    A refusal or an empty answer is asked again once; after that the critique's
    text is empty, which every judge rules undecided, and its ``reason`` says why.

    Parameters
    ----------
    model : its name
    ask : answers a Request
    settings : AnswerSettings
    concurrency : requests at a time
    provider : "openai", or "replay" for recorded answers
    interrupt : ends the waits of calls under way
    ask_ahead : has many Requests answered in batches, None: each is asked alone
    server : digest of the server's address (:func:`endpoint.server_id`); empty: not known
    """

    def __init__(
        self,
        model: str,
        ask: Callable[[Request], Answer],
        *,
        settings: AnswerSettings | None = None,
        concurrency: int = 1,
        provider: str = "openai",
        interrupt: Callable[[], None] | None = None,
        ask_ahead: Callable[[Iterable[Request]], None] | None = None,
        server: str = "",
    ) -> None:
        self.name = f"{provider}:{model}"
        self.model, self.ask = model, ask
        self.settings = settings or AnswerSettings()
        self.samples, self.concurrency = self.settings.samples, concurrency
        self.interrupt, self.ask_ahead, self.server = interrupt, ask_ahead, server

    def request(self, case: Case, sample: int = 0) -> Request:
        """What is asked about a case."""
        return critic_request(case, self.model, self.settings, sample)

    def criticise(self, case: Case, sample: int = 0) -> Critique:
        """What the model says; errors are those of ``ask``."""
        names = prompts.named_segments(case)
        answer, fault = answered(self.ask, self.request(case, sample), names)
        if fault:
            return self.without_answer(case, sample, f"{fault.kind}: {fault.words}")
        return Critique(case.case_id, self.name, answer.said, sample, names)

    def without_answer(self, case: Case, sample: int, reason: str) -> Critique:
        """What stands for a critique that was not to be had."""
        return Critique(case.case_id, self.name, "", sample, prompts.named_segments(case), reason=reason)

    def decided_by(self, case: Case) -> list[object]:
        """What its answers depend on beside the case: server, model, prompt and parameters."""
        return [self.server, self.model, prompts.critic_version(), self.settings.parameters()]


class OpenAIJudge:
    """A language model that reads a critique, and nothing else, and rules on each segment.

    Asked for structured output; what comes back is validated whatever its
    form.  An answer that cannot be used is asked again once; after that every
    segment is undecided.  A segment without pixels, which no critic can see,
    is not asked about and is background.

    Parameters
    ----------
    model, ask, settings, concurrency, provider, interrupt, ask_ahead : as for :class:`OpenAICritic`
    examples : dicts with "text" and "kind", default those that ship
    """

    def __init__(
        self,
        model: str,
        ask: Callable[[Request], Answer],
        *,
        settings: AnswerSettings | None = None,
        examples: Sequence[dict] | None = None,
        concurrency: int = 1,
        provider: str = "openai",
        interrupt: Callable[[], None] | None = None,
        ask_ahead: Callable[[Iterable[Request]], None] | None = None,
    ) -> None:
        self.name = f"{provider}:{model}"
        self.model, self.ask = model, ask
        self.settings = settings or AnswerSettings()
        self.examples = default_examples() if examples is None else list(examples)
        self.concurrency = concurrency
        self.interrupt, self.ask_ahead = interrupt, ask_ahead

    def request(self, critique: Critique, n_segments: int) -> Request:
        """What is asked about a critique."""
        names = critique.asked_about or segment_names(n_segments)
        return judge_request(
            critique.text, names, self.model, self.settings, self.examples, critique.case_id
        )

    def judge(self, critique: Critique, n_segments: int) -> Verdict:
        """The kind of each segment; errors are those of ``ask``."""
        if critique.reason or not critique.text.strip():
            return self.without_answer(
                critique, n_segments, critique.reason or "empty: there is no critique"
            )
        names = critique.asked_about or segment_names(n_segments)
        answer, fault = answered(self.ask, self.request(critique, n_segments), names)
        if fault:
            return self.without_answer(critique, n_segments, f"{fault.kind}: {fault.words}")
        return self._verdict(critique, n_segments, parse_verdicts(answer.said, names))

    def without_answer(self, critique: Critique, n_segments: int, reason: str) -> Verdict:
        """What stands for a verdict that was not to be had: every segment undecided."""
        names = critique.asked_about or segment_names(n_segments)
        return self._verdict(critique, n_segments, ("undecided",) * len(names), reason)

    def _verdict(
        self, critique: Critique, n_segments: int, ruled: Sequence[str], reason: str = ""
    ) -> Verdict:
        everything = segment_names(n_segments)
        by_name = dict(zip(critique.asked_about or everything, ruled, strict=True))
        return Verdict(
            critique.case_id,
            self.name,
            tuple(by_name.get(name, "background") for name in everything),
            reason=reason,
        )
