"""One's own network, aligned by words in one call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from lvlmva_lite.config import ConfigError
from lvlmva_lite.critic.providers import Connection
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods.run import run
from lvlmva_lite.registry import EXPLAINERS
from lvlmva_lite.results import Result
from lvlmva_lite.tasks import Folder, options_of
from lvlmva_lite.tasks.given import Given


class AlignmentRefused(RuntimeError):
    """An alignment costs more on the validation split than it may; the message says what.

    Attributes
    ----------
    result : Result, all that the run made, the aligned network included
    """

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


def align_with_words(
    model: nn.Module,
    images: str | Path | Tensor | ShortcutDataset,
    labels: Tensor | None = None,
    *,
    words: str,
    test: tuple[Tensor, Tensor] | ShortcutDataset | None = None,
    class_names: Sequence[str] | None = None,
    max_loss: float = 0.1,
    max_class_loss: float = 0.3,
    connection: Connection | None = None,
    progress: bool = False,
    **settings: Any,
) -> Result:
    """Align your own trained classifier by words: what `lvlmva align` does, from Python.

    Parameters
    ----------
    model : maps images (n, C, H, W) to logits (n, K); see :class:`models.OwnNetwork` for
        what else it may give.  It is left as it is; a copy is aligned
    images : a folder ``DIR/{train,val,test}/CLASS`` or a CSV file of path, class and split; or
        the training images (n, C, H, W) float32 in [0, 1], C 1 or 3, with their ``labels``;
        or a :class:`ShortcutDataset`, which may hold groups and masks to measure by
    labels : (n,) int64 in 0 .. K - 1, of a tensor of images
    words : what counts and what does not, such as "A sticker means nothing."
    test : images and labels, or a data set, that the network was not trained on; None: drawn out
        of those given, or the folder's own
    class_names : in the order of the network's outputs; None: the folders' names, sorted, or numbers
    max_loss, max_class_loss : what alignment may cost of the accuracy on the validation split, in [0, 1]:
        averaged over groups, or over classes where no groups are known; and of any one class.  1 allows all
    connection : how to reach a vision-language model and what that may cost
    progress : show progress bars
    settings : fields of :class:`Config`, such as ``critic="openai"`` or ``n_align=400``, or options of
        :class:`tasks.Folder`, such as ``image_size=224``, ``mean`` and ``std``

    Returns
    -------
    Result
        ``model`` is the aligned network, of your own class; ``scores``, ``by_class()``, ``table()``
        and ``changes()`` say what became better, ``told_losses()`` which classes became worse, of
        which a warning tells too, and ``verdicts`` and ``masks`` by what;
        :mod:`lvlmva_lite.result_figures` draws it

    Raises
    ------
    ConfigError : a setting, the images or the network cannot work; one line says which, and the mend
    AlignmentRefused : the alignment costs more than that; its ``result`` is what there would have been
    ValueError : tensors are not as described
    CompletenessError : no explainer can follow the network
    ServerError, CapReached, StoreError : the critic's answers stopped coming

    Examples
    --------
    >>> from lvlmva_lite import align_with_words
    >>> result = align_with_words(net, "belt", words="A sticker means nothing.")  # doctest: +SKIP
    >>> torch.save(result.model.state_dict(), "aligned.pt")  # doctest: +SKIP
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model must be a torch.nn.Module, the trained network; got {type(model).__name__}"
        )
    for name, most in (("max_loss", max_loss), ("max_class_loss", max_class_loss)):
        if not 0 <= most <= 1:
            raise ConfigError(f"{name} must lie between 0 and 1, got {most}")
    own = {one.name for one in options_of(Folder)}
    given = {name: _as_option(name, settings.pop(name)) for name in [*settings] if name in own}
    if strange := {"data", "classes"} & given.keys():
        raise ConfigError(
            f"{min(strange)} is given as {'images' if 'data' in strange else 'class_names'} here"
        )
    if isinstance(images, str | Path):
        if labels is not None or test is not None:
            raise ConfigError("labels and test belong to tensors; of a folder they are its folders' names")
        splits: dict[str, ShortcutDataset] = {}
        given |= {"data": str(images), "classes": ",".join(class_names or ())}
    else:
        train = _data_set(images, labels, class_names, "images")
        splits = {"train": train}
        given["data"] = "tensors"
        if test is not None:
            pair = test if isinstance(test, tuple | list) else (test, None)
            splits["test"] = _data_set(*pair, train.class_names, "test")
    task = Given(**given, trained=model, splits_given=splits)
    config = task.config(description=words, **name_explainer(settings))
    result = run(task, config, connection=connection, progress=progress)
    if lost := result.told_losses():
        warnings.warn(lost, stacklevel=2)
    weight = next(model.parameters(), None)
    if weight is not None:  # back from a GPU to where the user's own lies
        for one in result.models.values():
            one.to(weight.device)
    if refused := result.too_costly(max_loss, max_class_loss):
        cost, bound, most = refused
        raise AlignmentRefused(
            f"alignment costs {cost}, more than {bound}={most:g}: look at this error's result.verdicts, and at what the "
            f"words dismiss; where the shortcut itself made the answers right there, a greater {bound} takes it",
            result,
        )
    return result


def name_explainer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, in which ``explain`` may name what makes the maps, as ``explainer`` does.

    Raises
    ------
    ConfigError : the two name different ones
    """
    named, other = settings.get("explain"), settings.get("explainer")
    if named is None or named not in EXPLAINERS.names():
        return dict(settings)
    if other not in (None, named):
        raise ConfigError(
            f"explain {named!r} and explainer {other!r}: name one explainer, as explainer (--explainer)"
        )
    return {**settings, "explain": None, "explainer": named}


def _data_set(
    images: Tensor | ShortcutDataset, labels: Tensor | None, class_names: Sequence[str] | None, what: str
) -> ShortcutDataset:
    if isinstance(images, ShortcutDataset):
        if labels is not None or (class_names and tuple(class_names) != images.class_names):
            raise ConfigError(
                f"{what} is a data set with labels and class names of its own; leave yours out"
            )
        return images
    if labels is None:
        raise ConfigError(f"{what} needs labels: (n,) int64, the class of each image")
    if class_names is None:
        n = int(labels.max()) + 1 if isinstance(labels, Tensor) and labels.numel() else 0
        class_names = [f"class {i}" for i in range(max(n, 2))]
    return ShortcutDataset(images, labels, class_names=tuple(class_names))


def _as_option(name: str, value: Any) -> Any:
    """A value as the task's option has it: numbers a channel as text, paths as text."""
    if name in ("mean", "std") and not isinstance(value, str):
        return ",".join(map(str, np.asarray(value, float).ravel().tolist()))
    return str(value) if isinstance(value, Path) else value
