"""Load the user's own network and its weights, and save them for the user's class."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import io
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lvlmva_lite.files import write_whole
from lvlmva_lite.models.own import NetworkError, OwnNetwork, is_half, one_line
from lvlmva_lite.torchvision_compat import import_torchvision

NESTS = ("state_dict", "model_state_dict", "model", "network")
"""Keys under which training scripts put the weights in a file of more."""

PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
"""What DataParallel, torch.compile and Lightning put before the name of each weight."""


def load_model(
    name: str,
    *,
    n_classes: int,
    in_channels: int = 3,
    weights: str | os.PathLike | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    random_state: int = 0,
) -> OwnNetwork:
    """The user's own network, by the file and name of what builds it, or torchvision's or timm's by name.

    Parameters
    ----------
    name : one of
        ``"FILE.py:NAME"``: NAME is a class or function in FILE.py that
        returns the network.  It is called with the number of classes and of
        channels where it has parameters ``n_classes`` or ``num_classes`` and
        ``in_channels`` or ``in_chans``; all others need defaults.
        ``"torchvision:resnet18"``, any classifier of ``torchvision.models``;
        images of one channel are repeated to three.
        ``"timm:NAME"``, where timm is installed
    n_classes, in_channels : of the data
    weights : a file of tensors, as ``torch.save(network.state_dict(), file)``
        or safetensors write; the state dict may stand under "state_dict", "model_state_dict",
        "model" or "network", its names behind "module." and the like.  It is
        read without running any code of it.  None: random weights, with a warning
    mean, std : see :class:`OwnNetwork`
    random_state : int, draws the weights that no file gives

    Returns
    -------
    OwnNetwork : in eval mode, float32; its ``network`` is what the factory gave

    Raises
    ------
    NetworkError : in one line: no such file or name, the factory fails, the
        weights cannot be read or do not fit (the first names of each kind)
    """
    source, separator, what = name.rpartition(":")
    if not (separator and source and what):
        raise NetworkError(f"model must be FILE.py:NAME, torchvision:NAME or timm:NAME, got {name!r}")
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        if source == "torchvision":
            network = _from_torchvision(what, n_classes)
        elif source == "timm":
            network = _from_timm(what, n_classes, in_channels)
        else:
            network = _from_file(Path(source), what, n_classes, in_channels)
    if weights is None:
        warnings.warn(
            f"{name} starts from random weights, for no file of weights was named; it has learnt nothing yet",
            stacklevel=2,
        )
    else:
        load_weights(network, weights)
    if is_half(network):
        network.float()
    repeat_grey = source == "torchvision" and in_channels == 1
    return OwnNetwork(network, mean=mean, std=std, repeat_grey=repeat_grey).eval()


def _from_torchvision(name: str, n_classes: int) -> nn.Module:
    try:
        models = import_torchvision().models
    except ImportError as error:
        raise NetworkError(f"torchvision:{name} needs torchvision: pip install torchvision") from error
    names = models.list_models(module=models)
    if name not in names:
        near = difflib.get_close_matches(name, names)
        mend = f"did you mean {', '.join(near)}?" if near else "see torchvision.models.list_models()"
        raise NetworkError(f"torchvision has no classifier {name!r}; {mend}")
    # Two of them ask, by a warning, that nobody rely on their initial weights.
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, num_classes=n_classes, **options)


def _from_timm(name: str, n_classes: int, in_channels: int) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise NetworkError(f"timm:{name} needs timm: pip install 'lvlmva-lite[timm]'") from error
    try:
        return timm.create_model(name, pretrained=False, num_classes=n_classes, in_chans=in_channels)
    except Exception as error:
        raise NetworkError(f"timm cannot build {name!r}: {one_line(error)}") from error


def _from_file(file: Path, name: str, n_classes: int, in_channels: int) -> nn.Module:
    if not file.is_file():
        raise NetworkError(
            f"there is no file {file}; model must be FILE.py:NAME, torchvision:NAME or timm:NAME"
        )
    factory = getattr(_import_file(file), name, None)
    if not callable(factory):
        raise NetworkError(f"{file} has no class or function {name!r}")
    try:
        network = factory(**_arguments(factory, n_classes, in_channels))
    except Exception as error:
        raise NetworkError(f"{file}: {name} failed: {one_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{file}: {name} gave a {type(network).__name__}; it must give an nn.Module")
    return network


def _import_file(file: Path) -> Any:
    """The module of a file; what it imports from its own folder is found."""
    file = file.resolve()
    module_name = f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise NetworkError(f"{file} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # By its name in sys.modules, pickle and dataclasses find the module again.
    sys.modules[module_name] = module
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise NetworkError(f"{file} cannot be imported: {one_line(error)}") from error
    finally:
        sys.path.remove(str(file.parent))
    return module


def _arguments(factory: Callable[..., Any], n_classes: int, in_channels: int) -> dict[str, int]:
    taken = inspect.signature(factory).parameters
    offered = {
        "n_classes": n_classes,
        "num_classes": n_classes,
        "in_channels": in_channels,
        "in_chans": in_channels,
    }
    return {name: value for name, value in offered.items() if name in taken}


def load_weights(network: nn.Module, weights: str | os.PathLike) -> None:
    """Copy the weights of a file into ``network``; see ``weights`` of :func:`load_model`.

    Raises
    ------
    NetworkError : in one line: no such file, not to be read, or weights of another network
    """
    state, own = _read_state(Path(weights)), network.state_dict()
    while prefix := next((p for p in PREFIXES if state and all(key.startswith(p) for key in state)), None):
        if any(key.startswith(prefix) for key in own):
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    # Files of before PyTorch 0.4.1 do not count batches, and nothing here reads the count.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in own]
    reshaped = [
        f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    wrong = [
        f"{kind} {_first(names)}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", reshaped))
        if names
    ]
    if wrong:
        raise NetworkError(
            f"{weights} does not hold the weights of this {type(network).__name__}: {'; '.join(wrong)}"
        )
    network.load_state_dict(state, strict=False)


def _first(names: Iterable[str], n: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def _read_state(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise NetworkError(f"there is no file of weights {file}")
    try:
        if file.suffix == ".safetensors":
            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch's own words go on about how to read it all the same.
        unpickling = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors, as of a whole network" if unpickling else one_line(error)
        raise NetworkError(
            f"{file} cannot be read as a file of tensors ({reason}); save the weights alone: "
            "torch.save(network.state_dict(), file)"
        ) from error
    while isinstance(state, Mapping):
        nest = next((key for key in NESTS if isinstance(state.get(key), Mapping)), None)
        if nest is None:
            break
        state = state[nest]
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(value, Tensor) for value in state.values())
    ):
        held = _first(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise NetworkError(
            f"{file} holds {held or 'nothing'}, where names of weights with their tensors are needed; save them: "
            "torch.save(network.state_dict(), file)"
        )
    return dict(state)


def save_weights(model: nn.Module, file: str | os.PathLike) -> None:
    """Write the weights such that the user's class takes them: ``load_state_dict(torch.load(file))``.

    Names are those of the user's network, tensors lie on the CPU; the file is whole or not there.
    """
    network = model.network if isinstance(model, OwnNetwork) else model
    network = getattr(network, "_orig_mod", network)
    buffer = io.BytesIO()
    torch.save({key: value.detach().cpu() for key, value in network.state_dict().items()}, buffer)
    write_whole(Path(file), buffer.getvalue())
