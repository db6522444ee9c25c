"""``lvlmva align``: your own trained network, your own images, your own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from lvlmva_lite.cli import options
from lvlmva_lite.cli.run import made

_NOT_ASKED = ("description", "train_epochs", "learning_rate")
"""Settings under another name here, or of a training that does not take place."""

Data = Annotated[
    str,
    typer.Option(
        help="A folder DIR/{train,val,test}/CLASS, or a CSV of path, class, split.", metavar="DIR|CSV"
    ),
]
Model = Annotated[
    str, typer.Option(help="FILE.py:NAME, torchvision:NAME or timm:NAME.", metavar="SOURCE:NAME")
]
Weights = Annotated[str, typer.Option(help="Those it was trained to.", metavar="FILE")]
Words = Annotated[
    str,
    typer.Option(help="What counts and what does not, or a text file that says it.", metavar="TEXT|FILE"),
]


def align(
    data: Data,
    model: Model,
    weights: Weights,
    words: Words,
    out: options.Out,
    max_loss: options.MaxLoss = None,
    max_class_loss: options.MaxClassLoss = None,
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Align your own trained classifier by words.

    Writes aligned.pt (for your own class: load_state_dict(torch.load(...))),
    results.json, cases.png, accuracy.png, masks.npz, critiques.jsonl and
    verdicts.jsonl to the folder --out.
    Groups and masks of your images are not needed; where there are any, the worst
    group and the verdicts' scores are told too.  Example:

    lvlmva align --data belt --model net.py:Net --weights net.pt --words "A sticker means nothing." --out aligned
    """
    for option, value, says in (
        ("--model", model, ":" in model),
        ("--weights", weights, weights not in ("", "imagenet", "none")),
    ):
        if not says:
            raise options.fail(
                f"{option} {value!r}: align takes a network of yours that is trained, by FILE.py:NAME, torchvision:NAME "
                "or timm:NAME and the file of its weights; `lvlmva run folder` trains one first",
                2,
            )
    settings |= {"data": data, "model": model, "weights": weights, "description": words}
    made("folder", out, "lvlm-va", quiet, settings, figures=True, most=(max_loss, max_class_loss))


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """The command with an option for every setting but those that it asks for by another name."""
    if arguments[:1] != ["align"]:
        return options.with_options(align, {})
    named = ["folder", *arguments[1:]]
    all_options = (
        options.CRITIC
        | options.of_tasks(named[:1])
        | options.of_config(arguments=named[:1], list_choices="--help" in arguments)
    )
    return options.with_options(
        align, {name: one for name, one in all_options.items() if name not in _NOT_ASKED}
    )
