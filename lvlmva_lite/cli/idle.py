"""Options that do nothing beside the others: refused, where somebody gave them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvlmva_lite.config import Config
    from lvlmva_lite.tasks import Task

# What is not named in a table, such as what another package brings, may read any setting.
_OF_SEGMENTER = {
    "ppeps-wgm": {"fill", "tolerance", "feature_weight"},
    "sam": {"segmenter_checkpoint"},
    **dict.fromkeys(("slic", "felzenszwalb"), frozenset[str]()),
}
_ALIGNMENT = {"align_epochs", "align_learning_rate", "align_fraction"}
_PENALTY = {"penalty", "penalty_fill", "penalty_weight", "penalty_scale"}
_VERDICTS = {"critic", "description", "mask", "mask_near"}
_OF_METHOD = {
    **dict.fromkeys(("lvlm-va", "placebo"), _ALIGNMENT | _PENALTY | _VERDICTS | {"keep_unjudged"}),
    "look": _VERDICTS,
    "rrr-gt": _ALIGNMENT | _PENALTY,
    # Their penalty and its weight are their own, or there is none.
    **dict.fromkeys(("cdep", "counterexamples", "rr-clarc", "finetune"), _ALIGNMENT),
    **dict.fromkeys(("subg", "group-dro", "dfr", "jtt", "afr"), frozenset[str]()),
}
_TRAIN_ANEW = ("subg", "group-dro", "jtt", "afr")

_ANSWERS = {
    "critic_model", "judge_model", "samples", "temperature", "max_answer_tokens", "reasoning_effort", "extra_body",
}  # fmt: skip
_OF_CRITIC = {
    "lexicon": frozenset[str](),
    "simulated": {"simulated_accuracy"},
    "recorded": {"critic_model"},
    "replay": _ANSWERS | {"base_url", "store"},
    "openai": _ANSWERS | {
        "base_url", "store", "max_cost", "max_tokens_total", "max_concurrency", "price", "no_cost", "timeout",
    },
}  # fmt: skip
_TOLD_ELSEWHERE = {"critic_prompt", "samples", "batch", "i_may_send_these_images"}
"""Options of critics that have a message of their own, and a standing permission."""


def refuse_idle(task: Task, config: Config, method: str, given: Set[str]) -> None:
    """Refuse settings that were given and do nothing with this method, network, segmenter or penalty.

    Parameters
    ----------
    given : names of the fields of ``Config`` that somebody gave; a default is no wish

    Raises
    ------
    ConfigError : the first of them, by what makes it idle, and the mend
    """
    from lvlmva_lite.config import Config, ConfigError
    from lvlmva_lite.tasks import Folder

    def refuse(names: Set[str], why: str) -> None:
        if idle := [name for name in Config.__dataclass_fields__ if name in names & given]:
            option = Config.__dataclass_fields__[idle[0]].metadata["option"] or idle[0]
            raise ConfigError(f"--{option.replace('_', '-')} does nothing {why}; leave it out")

    used = _OF_METHOD.get(method)
    if used is not None:
        idle = set().union(*_OF_METHOD.values()) - used
        if config.critic == "recorded":  # its cases are the alignment set, whoever judges them
            idle -= {"critic"}
        if task.words is None:  # has to be given, whether it is read or not
            idle -= {"description"}
        refuse(idle, f"with --method {method}")
    if config.critic == "simulated" and task.words is not None:
        refuse({"description"}, "with --critic simulated, which knows the truth and reads no words")
    segmenter = _OF_SEGMENTER.get(config.segmenter)
    if segmenter is not None:
        refuse(set().union(*_OF_SEGMENTER.values()) - segmenter, f"with --segmenter {config.segmenter}")
    if config.penalty != "finite-difference":
        refuse({"penalty_fill"}, f"with --penalty {config.penalty}")
    if isinstance(task, Folder) and not task.images(config.seed).has_masks:
        refuse({"n_explained"}, "with images of which nobody marked the spurious feature")
    own = ":" in config.model
    if not task.network_named(config.model).pretrained or (own and config.weights == "imagenet"):
        refuse({"weights"}, f"with --model {config.model}, which starts from random weights")
    if (
        own
        and config.weights not in ("imagenet", "none")
        and method not in _TRAIN_ANEW
        and used is not None
    ):
        ready = "with a network that is trained already"
        refuse({"train_epochs", "learning_rate"}, ready)
        if not used & _ALIGNMENT:
            refuse({"batch_size", "decay"}, f"{ready}, and with --method {method}")


def refuse_idle_of_critic(critic: str, settings: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Refuse options of critics that do nothing with this one.

    Parameters
    ----------
    settings : value of each of these options
    usual : the value of each where it is not given

    Raises
    ------
    SettingsError : the first of them, and the mend
    """
    from lvlmva_lite.critic.endpoint import SettingsError

    # Another package's critic is given what decides answers, and no connection.
    used = _OF_CRITIC.get(critic, _ANSWERS | {"simulated_accuracy"}) | _TOLD_ELSEWHERE
    if critic == "recorded":
        used |= {"judge_model", "temperature"}  # held against the recording
    given = [name for name, value in usual.items() if name not in used and settings[name] != value]
    if not given:
        return
    option = f"--{given[0].replace('_', '-')}"
    if given[0] == "simulated_accuracy":
        raise SettingsError(f"{option} is for --critic simulated, not for {critic}")
    asks_none = critic in ("lexicon", "simulated", "recorded")
    raise SettingsError(
        f"{option} is for a model, and --critic {critic} asks none; leave it out, or choose --critic openai"
        if asks_none
        else f"{option} does nothing with --critic {critic}; leave it out"
    )
