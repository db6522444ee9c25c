"""The user's own network: what it may give, what is refused, how it is loaded and saved."""

import copy
import subprocess
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lvlmva_lite.alignment import align, jacobian_penalty, rrr_penalty
from lvlmva_lite.models import (
    NetworkError,
    OwnNetwork,
    as_classifier,
    check_network,
    fit,
    load_model,
    mlp,
    predict,
    predict_proba,
    save_weights,
)
from lvlmva_lite.models.own import refuse_probabilities


def chain(n_outputs=3, *tail):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, n_outputs), *tail)


def images(n=6):
    return torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(1))


class Dict(nn.Module):
    def __init__(self, key="logits", as_object=False):
        super().__init__()
        self.body, self.key, self.as_object = chain(), key, as_object

    def forward(self, x):
        logits = self.body(x)
        return (
            types.SimpleNamespace(logits=logits)
            if self.as_object
            else {self.key: logits, "loss": logits.sum()}
        )


# What networks give


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_is_predicted_by_its_sigmoid(flat):
    network = chain(1, nn.Flatten(0)) if flat else chain(1)
    with torch.no_grad():
        network[3].bias -= network[:4](images())[:, 0].median()
        z = network(images()).reshape(-1)
    probabilities = predict_proba(network, images())
    torch.testing.assert_close(probabilities, torch.stack([1 - z.sigmoid(), z.sigmoid()], 1))
    assert predict(network, images()).tolist() == (z > 0).long().tolist()
    assert predict(network, images()).unique().tolist() == [0, 1]


def test_one_logit_is_trained_and_penalised_as_the_two_classes_that_it_stands_for():
    one, labels = chain(1), torch.tensor([0, 1, 0, 1, 1, 0])
    masks = torch.ones(6, 2, 2, dtype=torch.bool)
    # log p and log (1 - p) by hand.
    x = images().requires_grad_()
    z = one(x)[:, 0]
    logs = nn.functional.logsigmoid(z) + nn.functional.logsigmoid(-z)
    (gradient,) = torch.autograd.grad(logs.sum(), x)
    torch.testing.assert_close(rrr_penalty(one, images(), masks), gradient.square().sum())
    (slope,) = torch.autograd.grad(one(x).sum(), x)
    torch.testing.assert_close(jacobian_penalty(one, images(), masks), slope.square().sum() / 2)
    with torch.no_grad():
        start = nn.functional.binary_cross_entropy_with_logits(one(images())[:, 0], labels.float())
    assert fit(copy.deepcopy(one), images(), labels, epochs=1)[0] == pytest.approx(start.item(), rel=1e-5)


@pytest.mark.parametrize("as_object", [False, True])
def test_logits_are_taken_out_of_dicts_and_objects(as_object):
    network = Dict(as_object=as_object)
    torch.testing.assert_close(predict_proba(network, images()), network.body(images()).softmax(1).detach())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Dict("scores"), r"a dict with \['loss', 'scores'\]; its logits must be under 'logits'"),
        (
            chain(3, nn.Unflatten(1, (1, 3))),
            r"returns \(\d, 1, 3\) for \d image\(s\); it must return logits \(n, classes\)",
        ),
        (chain(3, nn.Softmax(1)), "ends in a softmax, .* leave its last softmax out"),
        (chain(1, nn.Sigmoid()), "ends in a sigmoid, .* leave its last sigmoid out"),
        (chain(1, nn.Sigmoid(), nn.Flatten(0)), "ends in a sigmoid"),
        (chain(1, nn.LogSigmoid()), "ends in a logsigmoid"),
    ],
)
def test_what_are_no_logits_is_refused(network, message):
    for call in (predict_proba, predict, check_network):
        with pytest.raises(NetworkError, match=message):
            call(network, images())


def test_what_only_passes_a_softmax_is_not_refused():
    for tail in ((nn.Softmax(1), nn.Linear(3, 2)), (nn.LogSoftmax(1),), (nn.Tanh(),)):
        refuse_probabilities(chain(3, *tail), images()[:1])


def test_our_own_networks_are_left_as_they_are():
    model = mlp((3, 2, 2), 3)
    assert as_classifier(model) is model
    own = OwnNetwork(chain())
    assert as_classifier(own) is own
    assert torch.equal(own(images()), own.network(images()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_are_sent_to_the_type_of_the_weights(dtype):
    probabilities = predict_proba(chain().to(dtype), images())
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, predict_proba(chain(), images()), atol=5e-3, rtol=5e-3)


def test_normalisation_and_grey_images():
    network, mean, std = chain(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    normal = (images() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(OwnNetwork(network, mean=mean, std=std)(images()), network(normal))
    grey = images()[:, :1]
    torch.testing.assert_close(
        OwnNetwork(network, repeat_grey=True)(grey), network(grey.expand(-1, 3, -1, -1))
    )
    with pytest.raises(NetworkError, match=r"std must be above 0 in each channel, got \[0.5, 0.0, 0.5\]"):
        OwnNetwork(network, std=(0.5, 0, 0.5))


# What is checked before long work


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(5, 3))

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Fails(), r"fails in 'body.1' \(Linear\) on images of shape \(3, 2, 2\): RuntimeError: mat1"),
        (
            nn.Conv2d(1, 3, 2),
            r"fails in the network \(Conv2d\) on images of shape \(3, 2, 2\): RuntimeError",
        ),
        (chain(4), "tells 4 classes apart, the data has 3"),
        (
            nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), chain()),
            "depends on the other images",
        ),
        (
            nn.Sequential(
                type("D", (nn.Module,), {"forward": lambda _, x: nn.functional.dropout(x)})(), chain()
            ),
            "chance",
        ),
    ],
    ids=["size", "channels", "classes", "batch", "chance"],
)
def test_networks_that_the_method_cannot_be_run_with_are_refused_in_one_line(network, message):
    with pytest.raises(NetworkError, match=message) as caught:
        check_network(network, images(), 3)
    assert "\n" not in str(caught.value)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_nan_is_refused():
    network = chain()
    with torch.no_grad():
        network[3].bias[1] = torch.nan
    with pytest.raises(NetworkError, match="NaN"):
        check_network(network, images())


def aligned(network, n_classes=3):
    labels = torch.arange(6) % n_classes
    return align(
        network, images(), labels, images(), labels, torch.ones(6, 2, 2, dtype=torch.bool),
        penalty_weight=1.0, epochs=1, batch_size=4,
    )  # fmt: skip


def test_a_frozen_network_is_refused_and_one_frozen_in_part_is_aligned():
    network = chain().requires_grad_(False)
    for call in (aligned, lambda model: fit(model, images(), torch.arange(6) % 3, epochs=1)):
        with pytest.raises(NetworkError, match=r"every weight .* is frozen .* network.requires_grad_"):
            call(network)
    network[3].requires_grad_()
    before = copy.deepcopy(network.state_dict())
    aligned(network)
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["3.weight", "3.bias"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_not_trained(dtype):
    with pytest.raises(NetworkError, match=r"half-precision .* network.float\(\) before"):
        aligned(chain().to(dtype))


def test_attention_has_the_second_derivative_that_the_penalty_needs():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(12, 3)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)[:, None].contiguous()
            return self.head(nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1))

    network, masks = Attention(), torch.ones(6, 2, 2, dtype=torch.bool)
    for penalty in (rrr_penalty, jacobian_penalty):
        penalty(network, images(), masks).backward()
    # The gradient of the penalty in the weights, against differences in float64.
    network, x = network.double(), images().double()
    network.zero_grad()
    rrr_penalty(network, x, masks).backward()
    step, weight = 1e-5, network.head.weight
    values = []
    for shift in (step, -2 * step):
        with torch.no_grad():
            weight[1, 2] += shift
        values.append(rrr_penalty(network, x, masks).item())
    assert weight.grad[1, 2].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_hardsigmoid_has_a_second_derivative_and_other_functions_without_are_named():
    masks = torch.ones(6, 2, 2, dtype=torch.bool)

    class ByHand(nn.Module):
        def forward(self, x):
            return (x + 3).clamp(0, 6) / 6

    gradients = []
    for gate in (nn.Hardsigmoid(), ByHand()):
        torch.manual_seed(5)
        network = chain(4, gate, nn.Linear(4, 3))
        nn.init.ones_(network[-1].weight[:1])
        rrr_penalty(network, images(), masks).backward()
        gradients.append(network[1].weight.grad)
    torch.testing.assert_close(*gradients)

    class Prototypes(nn.Module):
        """Minus the distance to three points."""

        def forward(self, x):
            return -torch.cdist(x[:, None], torch.eye(3, 8)[None])[:, 0]

    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), Prototypes())
    with pytest.raises(NetworkError, match=r"a second derivative that PyTorch lacks \(.*_cdist_backward"):
        aligned(network)


def test_a_compiled_network_is_explained_and_aligned_uncompiled():
    compiled = torch.compile(chain(), backend="aot_eager")
    with torch.no_grad():
        expected = compiled(images()).softmax(1)  # compiles, so that later hooks would not be seen
    torch.testing.assert_close(predict_proba(compiled, images()), expected)
    from lvlmva_lite.attribution import deeplift_shap

    labels = torch.arange(6) % 3
    maps = deeplift_shap(compiled, images(), labels, images()[:3])
    torch.testing.assert_close(maps, deeplift_shap(chain(), images(), labels, images()[:3]))
    before = chain()[1].weight.clone()
    aligned(compiled)  # a second derivative, which aot_eager has not
    assert not torch.equal(compiled._orig_mod[1].weight, before)


# Loading and saving

FACTORY = """
import torch
from torch import nn
from parts import head


class Net(nn.Module):
    def __init__(self, num_classes, in_channels=3, width=4):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(in_channels, width, 2), head(width, num_classes)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def plain():
    return Net(3)


def half(n_classes):
    return Net(n_classes).half()


def fails():
    raise KeyError("no such\\nkey")


def gives_none():
    return None


def demands(width):
    return Net(3, width=width)
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "net.py").write_text(FACTORY)
    (tmp_path / "parts.py").write_text("from torch import nn\nhead = nn.Linear\n")
    return tmp_path / "net.py"


@pytest.mark.filterwarnings("ignore:.*starts from random weights")
def test_factories_get_what_they_ask_for(file):
    model = load_model(f"{file}:Net", n_classes=5, in_channels=1)
    assert model(torch.rand(2, 1, 4, 4)).shape == (2, 5)
    assert not model.training
    assert load_model(f"{file}:plain", n_classes=3)(images()).shape == (6, 3)
    assert next(load_model(f"{file}:half", n_classes=3).parameters()).dtype == torch.float32
    assert str(file.parent) not in sys.path


def test_no_weights_is_said(file):
    with pytest.warns(UserWarning, match="net.py:plain starts from random weights"):
        load_model(f"{file}:plain", n_classes=3)


@pytest.mark.filterwarnings("ignore:.*starts from random weights")
def test_random_weights_follow_the_random_state_and_leave_the_global_one_alone(file):
    state = torch.get_rng_state()
    one, same, other = (load_model(f"{file}:Net", n_classes=3, random_state=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.network.conv.weight, same.network.conv.weight)
    assert not torch.equal(one.network.conv.weight, other.network.conv.weight)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("fails", "net.py: fails failed: KeyError: 'no such"),
        ("gives_none", "net.py: gives_none gave a NoneType; it must give an nn.Module"),
        ("demands", "net.py: demands failed: TypeError: .*width"),
        ("missing", "net.py has no class or function 'missing'"),
        ("FACTORY.no", "has no class or function"),
    ],
)
def test_what_a_factory_does_wrong_is_one_line_with_its_file(file, what, message):
    with pytest.raises(NetworkError, match=message) as caught:
        load_model(f"{file}:{what}", n_classes=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name", "broken.py cannot be imported: ModuleNotFoundError"),
        ("def f(:", "broken.py cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", "broken.py cannot be imported: SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(tmp_path, text, message):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(NetworkError, match=message):
        load_model(f"{tmp_path / 'broken.py'}:f", n_classes=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "model must be FILE.py:NAME, torchvision:NAME or timm:NAME, got 'resnet18'"),
        ("nowhere.py:f", "there is no file nowhere.py"),
        ("net.py:", "must be FILE.py:NAME"),
    ],
)
def test_names_that_name_no_network(name, message):
    with pytest.raises(NetworkError, match=message):
        load_model(name, n_classes=2)


NESTINGS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "twice": lambda state: {"model": {"state_dict": state}},
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "Lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    "both": lambda state: {"model": {f"module._orig_mod.{key}": value for key, value in state.items()}},
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_weights_are_found_as_training_scripts_save_them(file, tmp_path, nesting):
    source = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 2), "fc": nn.Linear(4, 3)}).state_dict()
    torch.save(NESTINGS[nesting](source), tmp_path / "w.pt")
    model = load_model(f"{file}:Net", n_classes=3, weights=tmp_path / "w.pt")
    assert all(torch.equal(value, source[key]) for key, value in model.network.state_dict().items())


def test_safetensors_are_read(file, tmp_path):
    source = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 2), "fc": nn.Linear(4, 3)}).state_dict()
    save_file(dict(source), tmp_path / "w.safetensors")
    model = load_model(f"{file}:Net", n_classes=3, weights=tmp_path / "w.safetensors")
    assert torch.equal(model.network.fc.weight, source["fc.weight"])


def test_weights_that_do_not_fit_are_told_by_their_first_names(file, tmp_path):
    source = nn.ModuleDict({"conv": nn.Conv2d(1, 4, 2), "head": nn.Linear(4, 3)}).state_dict()
    torch.save(source, tmp_path / "w.pt")
    with pytest.raises(NetworkError) as caught:
        load_model(f"{file}:Net", n_classes=3, weights=tmp_path / "w.pt")
    assert str(caught.value).endswith(
        "w.pt does not hold the weights of this Net: missing fc.weight, fc.bias; unknown head.weight, head.bias; "
        "of another shape conv.weight (4, 1, 2, 2) for (4, 3, 2, 2)"
    )
    torch.save({f"a{i}": torch.zeros(1) for i in range(9)}, tmp_path / "w.pt")
    with pytest.raises(NetworkError, match="unknown a0, a1, a2 and 6 more"):
        load_model(f"{file}:Net", n_classes=3, weights=tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda file: torch.save(chain(), file),
            r"cannot be read as a file of tensors .* save the weights alone",
        ),
        (lambda file: file.write_bytes(b"GIF89a"), "cannot be read as a file of tensors"),
        (lambda file: torch.save([1, 2], file), "holds list, where names of weights"),
        (lambda file: torch.save({}, file), "holds nothing"),
        (lambda file: None, "there is no file of weights"),
    ],
    ids=["whole pickle", "picture", "list", "empty", "missing"],
)
def test_files_that_hold_no_weights_are_refused_in_one_line(file, tmp_path, write, message):
    write(tmp_path / "w.pt")
    with pytest.raises(NetworkError, match=message) as caught:
        load_model(f"{file}:Net", n_classes=3, weights=tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


def test_weights_run_no_code(file, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"conv.weight": Evil()}, tmp_path / "w.pt")
    with pytest.raises(NetworkError):
        load_model(f"{file}:Net", n_classes=3, weights=tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:.*starts from random weights")
def test_saved_weights_load_into_the_users_class_without_this_package(file, tmp_path):
    model = load_model(f"{file}:Net", n_classes=3, mean=(0.5,), std=(0.5,))
    aligned(model)
    save_weights(model, tmp_path / "aligned.pt")
    out = subprocess.run(
        [
            sys.executable, "-c",
            "import sys, torch; from net import Net; net = Net(3); "
            "net.load_state_dict(torch.load('aligned.pt')); print(net.fc.bias.tolist(), 'lvlmva_lite' in sys.modules)",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert out.stdout.strip() == f"{model.network.fc.bias.tolist()} False"
    again = load_model(f"{file}:Net", n_classes=3, weights=tmp_path / "aligned.pt", mean=(0.5,), std=(0.5,))
    assert torch.equal(again(images()), model(images()))


@pytest.mark.filterwarnings("ignore:.*starts from random weights")
def test_torchvision_by_name_and_grey_images_for_it():
    model = load_model("torchvision:squeezenet1_1", n_classes=4, in_channels=1)
    grey = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(model(grey), model.network(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(
        NetworkError, match=r"torchvision has no classifier 'resnet19'; did you mean .*resnet18"
    ):
        load_model("torchvision:resnet19", n_classes=2)


@pytest.mark.filterwarnings("ignore:.*starts from random weights")
def test_timm_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(NetworkError, match=r"timm:tiny needs timm: pip install 'lvlmva-lite\[timm\]'"):
        load_model("timm:tiny", n_classes=2)

    def create_model(name, pretrained, num_classes, in_chans):
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        return nn.Sequential(nn.Flatten(), nn.Linear(4 * in_chans, num_classes))

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    assert load_model("timm:tiny", n_classes=5)(images()).shape == (6, 5)
    with pytest.raises(
        NetworkError, match=r"timm cannot build 'huge': RuntimeError: Unknown model \(huge\)"
    ):
        load_model("timm:huge", n_classes=2)
