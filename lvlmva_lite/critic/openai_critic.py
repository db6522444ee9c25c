"""A vision-language model as the critic, a language model as the judge.

Both put a question to ``ask`` and make something of the answer.  ``ask`` is
:meth:`ChatClient.ask` for a live server or :meth:`AnswerStore.replay` for
recorded answers; neither class knows which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lvlmva_lite.critic import prompts
from lvlmva_lite.critic.panels import render_panels
from lvlmva_lite.critic.store import Answer, Request
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
    """

    samples: int = 1
    temperature: float | None = None
    max_answer_tokens: int = 2048

    def parameters(self, **more: object) -> dict[str, object]:
        """As parameters of a request."""
        own = {"max_answer_tokens": self.max_answer_tokens}
        return own | ({} if self.temperature is None else {"temperature": self.temperature}) | more


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
    )  # fmt: skip


def judge_request(
    critique: str,
    names: Sequence[str],
    model: str,
    settings: AnswerSettings | None = None,
    examples: Sequence[dict] | None = None,
) -> Request:
    """What a judge is asked about a critique: the key under which its answer is recorded."""
    settings = settings or AnswerSettings()
    examples = default_examples() if examples is None else examples
    return Request(
        "judge", model, prompts.judge_version(),
        prompts.judge_messages(critique, names, examples),
        settings.parameters(ask=0, structured="verdicts"),
    )  # fmt: skip


def asked_again(request: Request, answer: Answer, complaint: str, names: Sequence[str]) -> Request:
    """The one second request after an answer that cannot be used."""
    return Request(
        request.kind, request.model, request.prompt_version,
        prompts.ask_again(request.messages, answer.text, complaint, names),
        {**request.parameters, "ask": 1},
    )  # fmt: skip


class OpenAICritic:
    """A vision-language model that looks at a case's panels and argues in free text.

    A refusal or an empty answer is asked again once; after that the critique's
    text is empty, which every judge rules undecided.

    Parameters
    ----------
    model : its name
    ask : answers a Request
    settings : AnswerSettings
    concurrency : requests at a time
    provider : "openai", or "replay" for recorded answers
    """

    def __init__(
        self,
        model: str,
        ask: Callable[[Request], Answer],
        *,
        settings: AnswerSettings | None = None,
        concurrency: int = 1,
        provider: str = "openai",
    ) -> None:
        self.name = f"{provider}:{model}"
        self.model, self.ask = model, ask
        self.settings = settings or AnswerSettings()
        self.samples, self.concurrency = self.settings.samples, concurrency

    def criticise(self, case: Case, sample: int = 0) -> Critique:
        """What the model says; errors are those of ``ask``."""
        names = prompts.named_segments(case)
        request = critic_request(case, self.model, self.settings, sample)
        answer = self.ask(request)
        if complaint := _no_answer(answer):
            answer = self.ask(asked_again(request, answer, complaint, names))
        text = "" if _no_answer(answer) else answer.text
        return Critique(case.case_id, self.name, text, sample, names)

    def decided_by(self, case: Case) -> list[object]:
        """What its answers depend on beside the case: model, prompt and parameters."""
        return [self.model, prompts.critic_version(), self.settings.parameters()]


class OpenAIJudge:
    """A language model that reads a critique, and nothing else, and rules on each segment.

    Asked for structured output; what comes back is validated whatever its
    form.  An answer that cannot be used is asked again once; after that every
    segment is undecided.  A segment without pixels, which no critic can see,
    is not asked about and is background.

    Parameters
    ----------
    model, ask, settings, concurrency, provider : as for :class:`OpenAICritic`
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
    ) -> None:
        self.name = f"{provider}:{model}"
        self.model, self.ask = model, ask
        self.settings = settings or AnswerSettings()
        self.examples = default_examples() if examples is None else list(examples)
        self.concurrency = concurrency

    def judge(self, critique: Critique, n_segments: int) -> Verdict:
        """The kind of each segment; errors are those of ``ask``."""
        everything = segment_names(n_segments)
        names = critique.asked_about or everything
        ruled = dict(zip(names, self._ruled(critique.text, names), strict=True))
        return Verdict(
            critique.case_id, self.name, tuple(ruled.get(name, "background") for name in everything)
        )

    def _ruled(self, critique: str, names: Sequence[str]) -> tuple[str, ...]:
        if critique.strip():
            request = judge_request(critique, names, self.model, self.settings, self.examples)
            for last in (False, True):
                answer = self.ask(request)
                complaint = _no_answer(answer)
                if answer.finish_reason == "length":
                    # Whole verdicts in it may be a quotation, its own cut off.
                    complaint = complaint or "it was cut off"
                if not complaint:
                    try:
                        return parse_verdicts(answer.text, names)
                    except MalformedAnswer as error:
                        complaint = str(error)
                if not last:
                    request = asked_again(request, answer, complaint, names)
        return ("undecided",) * len(names)


def _no_answer(answer: Answer) -> str:
    """Why there is nothing to read in an answer; empty if there is."""
    if answer.refusal or answer.finish_reason == "content_filter":
        return "it was refused"
    return "" if answer.text.strip() else "it is empty"
