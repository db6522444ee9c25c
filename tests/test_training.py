import pytest
import torch
from torch import nn

from lvlmva_lite.models import fit


class Rates:
    """Keeps the learning rate of every step that an optimiser takes."""

    def __init__(self, monkeypatch):
        self.taken = []
        step = torch.optim.AdamW.step

        def remembered(optimizer, *args, **keywords):
            self.taken.append(optimizer.param_groups[0]["lr"])
            self.last = optimizer
            return step(optimizer, *args, **keywords)

        monkeypatch.setattr(torch.optim.AdamW, "step", remembered)

    @property
    def left(self):
        return self.last.param_groups[0]["lr"]


def train(n=10, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    images = torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return fit(model, images, torch.arange(n) % 2, batch_size=4, learning_rate=0.1, **settings)


def test_decay_falls_in_equal_steps_and_ends_at_zero(monkeypatch):
    rates = Rates(monkeypatch)
    train(epochs=4, decay=True)  # batches of 4, 4 and 2
    assert len(rates.taken) == 12
    assert rates.taken == pytest.approx([0.1 * (1 - i / 12) for i in range(12)])
    assert rates.left == pytest.approx(0, abs=1e-12)


def test_decay_counts_the_samples_that_are_repeated_or_left_out(monkeypatch):
    rates = Rates(monkeypatch)
    train(epochs=2, decay=True, indices=torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 5]))
    assert len(rates.taken) == 8
    assert rates.left == pytest.approx(0, abs=1e-12)


def test_without_decay_the_rate_stays(monkeypatch):
    rates = Rates(monkeypatch)
    train(epochs=3)
    assert set(rates.taken) == {0.1}
    assert rates.left == 0.1


def test_decay_changes_what_is_learnt():
    assert train(epochs=5, decay=True)[1:] != train(epochs=5)[1:]


class Sizes(nn.Module):
    """Notes how many samples it sees at once."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        return images


@pytest.mark.parametrize(
    ("n", "normalised", "sizes"),
    [(9, True, [4, 5]), (9, False, [4, 4, 1]), (10, True, [4, 4, 2]), (5, True, [5]), (4, True, [4])],
)
def test_no_batch_of_one_is_normalised(n, normalised, sizes, monkeypatch):
    # BatchNorm refuses a single value a channel, and a single image's own statistics teach nothing.
    rates = Rates(monkeypatch)
    watch = Sizes()
    norm = nn.BatchNorm1d(4) if normalised else nn.Identity()
    model = nn.Sequential(watch, nn.Flatten(), norm, nn.Linear(4, 2))
    images = torch.rand(n, 1, 2, 2)
    fit(model, images, torch.arange(n) % 2, epochs=2, batch_size=4, decay=True)
    assert watch.seen == sizes * 2
    assert rates.left == pytest.approx(0, abs=1e-12)
