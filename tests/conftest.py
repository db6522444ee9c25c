import os
import socket
import subprocess

# Several test processes with several threads each would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from few_decoys import take_few

from lvlmva_lite.cli import main
from lvlmva_lite.datasets import load_decoy_mnist
from lvlmva_lite.models import fit, mlp


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """The default path fetches nothing: only this machine may be spoken to."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def no_pyplot_figures(monkeypatch):
    """JupyterLab closes any figure of pyplot after each message, also one that another thread is drawing."""
    monkeypatch.setattr("matplotlib.pyplot.figure", lambda *_, **__: pytest.fail("a figure of pyplot"))


@pytest.fixture(scope="session")
def decoys():
    """2 000 training decoys, enough to learn the shortcut from."""
    return load_decoy_mnist("train").subset(torch.arange(2000))


@pytest.fixture(scope="session")
def shortcut_model(decoys):
    model = mlp((1, 28, 28), 10)
    fit(model, decoys.images, decoys.labels, epochs=10)
    return model


@pytest.fixture
def lvlmva(monkeypatch, capsys):
    """The command, without a process of its own."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["lvlmva", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        told = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, done.value.code or 0, told.out, told.err)

    return call


@pytest.fixture
def in_process(monkeypatch, lvlmva):
    """The command ``lvlmva`` without a process of its own, on few decoys."""
    take_few(monkeypatch.setattr)
    return lvlmva
