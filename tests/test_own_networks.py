"""A network of one's own, from a folder of one's own, goes through everything that the report's network does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cnn_mnist
from cnn_mnist.analysis import layers, occlusion
from cnn_mnist.analysis.architecture import architecture, total
from cnn_mnist.analysis.saliency import saliency
from cnn_mnist.figures import activations as draw
from cnn_mnist.network import not_finite
from cnn_mnist.training.module import Classifier
from tests import own_networks
from tests.conftest import SMALL, Command, Done

NETWORKS = ("Perceptron", "TanhLeNet", "Residual", "Transformer", "Depthwise")
SHIPPED = ("mlp", "lenet5", "resnet")
CONFIG = ("--config-dir", "my_conf")
SHORT = ("data=digits", "trainer=cpu", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a file of networks, and a configuration for each."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(own_networks.__file__, folder / "mine.py")
    (folder / "my_conf" / "network").mkdir(parents=True)
    for name, thing in vars(own_networks).items():
        if getattr(thing, "__module__", "") == own_networks.__name__:
            (folder / "my_conf" / "network" / f"{name.lower()}.yaml").write_text(f"_target_: mine.{name}\n")
    return folder


@pytest.fixture(scope="module")
def report(run: Done) -> str:
    """The report's network, to compare with."""
    return f"against={run.folder.resolve()}"


def trained(train: Command, home: Path, *options: str) -> Done:
    done = train(*options, "data=digits", "trainer=cpu", "trainer.max_epochs=1", cwd=home)
    assert done.status == 0, done.err
    assert done.err == ""
    return done


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_goes_through_everything(name: str, train: Command, analyze: Command, home: Path, report: str) -> None:
    own = (*CONFIG, f"network={name.lower()}")
    pictures = [] if name in ("Perceptron", "Transformer") else ["callbacks=none"]
    done = trained(train, home, *own, *pictures)
    network = vars(own_networks)[name]()
    assert done.results["num_parameters"] == sum(p.numel() for p in network.parameters())
    assert done.results["network"] == f"mine.{name}"

    beside = [report] if name in ("Perceptron", "Transformer") else []
    all_of_it = analyze(*own, *SMALL, "images=3", *beside, f"ckpt_path={done.folder}", cwd=home)
    assert all_of_it.status == 0, all_of_it.err
    assert "Traceback" not in all_of_it.err
    assert all_of_it.results["failed"] == {}
    assert set(all_of_it.results) >= {
        "filters",
        "activations",
        "occlusion",
        "saliency",
        "class_image",
        "targeted",
        "pgd",
    }
    says_why = "Grad-CAM is left out: it needs a convolution that the logit depends on"
    assert (says_why in all_of_it.out) == (name == "Perceptron")

    if name in ("Residual", "TanhLeNet"):  # the rest is the same for any network
        return
    universal = ("attack=universal", "attack.num_test_images=20", "attack.num_train_images=200", "attack.steps=10")
    for words in (universal, ("attack=deepfool", "attack.num_images=20")):
        attacked = analyze(*own, *words, f"ckpt_path={done.folder}", cwd=home)
        assert attacked.status == 0, attacked.err

    exported = analyze(*own, "export=onnx", "export.num_images=50", f"ckpt_path={done.folder}", cwd=home)
    assert exported.status == 0, exported.err
    (named,) = (line.strip() for line in exported.out.splitlines() if line.endswith("network.onnx"))
    assert (home / named).is_file()
    assert exported.results["onnx"]["num_same_class"] == 50


@pytest.mark.filterwarnings("ignore:the gradient is zero")
def test_the_checklist_sees_a_masked_gradient(train: Command, analyze: Command, home: Path) -> None:
    own = (*CONFIG, "network=rounding")
    run = trained(train, home, *own, "callbacks=none")
    few = ("attack.num_images=8", "attack.num_decision_based=5", "attack.num_breakable=2", "attack.queries=300")
    done = analyze(*own, "attack=checklist", *few, "attack.steps=8", f"ckpt_path={run.folder}", cwd=home)
    assert done.status == 1
    line = done.err.splitlines()[-1]
    assert "does not hold: checklist: " in line
    assert "an attack without a gradient finds less than 0.2 points more" in line
    assert "attacks by gradient break copies that are made breakable" in line
    verdicts = [point["holds"] for point in done.results["points"]]
    assert done.results["num_holding"] == sum(verdicts) < len(verdicts) == done.results["num_points"]
    assert done.results["found_more"]["square"] > 0.3
    assert done.results["worst_case"] == pytest.approx(1 - done.results["success_rate"])
    assert done.out.splitlines()[-1].startswith("results: ")
    swept = analyze("-m", *own, "attack=checklist", *few, "attack.steps=8,9", f"ckpt_path={run.folder}", cwd=home)
    assert swept.status == 0, swept.err
    jobs = json.loads(next(home.glob("multirun/*/sweep.json")).read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["done", "done"]  # what does not hold is a result
    assert all("does not hold" in job["error"] for job in jobs)
    assert "does not hold" in swept.err


def test_shipped_networks_train_and_are_looked_at(train: Command, analyze: Command, tmp_path: Path) -> None:
    swept = train(
        "-m",
        "network=mlp,lenet5,resnet",
        "data=digits",
        "trainer=cpu",
        "callbacks=none",
        "trainer.max_epochs=2",
        cwd=tmp_path,
    )
    assert swept.status == 0, swept.err
    found = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("multirun/*/*/results.json")}
    sizes = {one["network"].rpartition(".")[2]: one["num_parameters"] for one in found.values()}
    assert sizes == {"MLP": 648_010, "LeNet5": 61_706, "ResNet": 77_754}
    assert [one["network"] for one in found.values() if one["batchnorm"]] == ["cnn_mnist.networks.resnet.ResNet"]
    assert all(one["test/acc"] > 0.3 for one in found.values())
    done = analyze("analysis=activations", "activations.num_images=50", cwd=tmp_path)
    assert done.status == 0, done.err


def test_a_file_alone_names_no_code(train: Command, analyze: Command, home: Path, tmp_path: Path) -> None:
    done = trained(train, home, *CONFIG, "network=perceptron", "callbacks=none")
    planted = tmp_path / "mine.py"  # the same name, but another program
    planted.write_text("open('run', 'w').close()\n")
    refused = analyze(f"ckpt_path={done.folder.resolve()}", "analysis=filters", cwd=tmp_path)
    assert refused.status == 1
    assert len(refused.err.splitlines()) == 1
    assert "is of the network mine.Perceptron. Classes from outside this package are imported only if" in refused.err
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="imported only if the command names them"):
        cnn_mnist.load_network(done.folder)


@pytest.mark.parametrize(
    "target", ["cnn_mnist.networks.build.build", "cnn_mnist.networks.resnet.BasicBlock", "os.system"]
)
def test_only_networks_of_the_package_are_built_from_a_file(target: str, run: Done, tmp_path: Path) -> None:
    content = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["network"] = {"_target_": target, "command": "touch run"}
    torch.save(content, tmp_path / "planted.ckpt")
    with pytest.raises(ValueError, match="imported only if the command names them"):
        cnn_mnist.load_network(tmp_path / "planted.ckpt")


def test_a_run_of_ones_own_network_is_resumed_where_it_is_named(train: Command, home: Path) -> None:
    done = trained(train, home, *CONFIG, "network=perceptron", "+network.hidden=32", "callbacks=none")
    more = (f"ckpt_path={done.folder}", "trainer.max_epochs=2")
    again = train(*CONFIG, "network=perceptron", "+network.hidden=32", *more, cwd=home)
    assert again.status == 0, again.err
    assert again.results["epochs"] == 2
    refused = train(f"ckpt_path={done.folder}", "trainer.max_epochs=3", cwd=home)
    assert refused.status == 1
    says = "asks for mine.Perceptron, which is not run from a file: repeat the options that chose it (network...)"
    assert says in refused.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("network=toowide", "network TooWide returns 12 logits, but the data set has 10 classes"),
        ("network=pair", "network Pair: the model must return a tensor of logits (B, C), got a tuple"),
        ("network=probabilities", "network Probabilities: the model returns probabilities"),
        ("network=coloured", "network Coloured cannot evaluate images of the shape (B, 1, 28, 28)"),
        ("network=not_a_network", "network mine.not_a_network must make an nn.Module, got a str"),
        ("network=perceptron network._target_=mine.Nothing", "module 'mine' has no attribute 'Nothing'"),
        ("network=perceptron network._target_=nowhere.Net", "No module named 'nowhere'"),
        ("network=perceptron +network.width=3", "got an unexpected keyword argument 'width'"),
        (
            "network=perceptron model.batchnorm=true",
            "but the network mine.Perceptron has no batch normalisation to switch on",
        ),
        ("network=mlp network.hidden=0", "network.hidden must be a whole number of at least 1, got 0"),
        ("network=mpl", "network=mpl does not exist: did you mean mlp?"),
    ],
)
def test_a_mistake_is_one_line(words: str, says: str, train: Command, home: Path) -> None:
    done = train(*CONFIG, *words.split(), "data=digits", "trainer=cpu", cwd=home)
    assert done.status == 1, done.out
    assert len(done.err.splitlines()) == 1, done.err
    assert says in done.err


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_in_the_table(name: str) -> None:
    network = vars(own_networks)[name]()
    rows = architecture(network)
    assert total(rows).num_parameters == sum(p.numel() for p in network.parameters())
    assert rows[-1].name in ("Softmax", "Others")


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_layer_gives_out_is_what_pytorch_says(name: str) -> None:
    """The oracle: the network run layer by layer, by hand."""
    torch.manual_seed(0)
    network = vars(own_networks)[name]().eval()
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        by_hand = BY_HAND[name](network, images)
        found = layers.outputs(network, images, by_hand)
        for layer, (before, after) in by_hand.items():
            torch.testing.assert_close(found[layer].before, before)
            torch.testing.assert_close(found[layer].after, after)
        torch.testing.assert_close(network(images), layers.trace(network, images).result)


def _perceptron(net: nn.Module, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    a = net.first(x.flatten(1))
    b = net.second(a.relu())
    return {"first": (a, a.relu()), "second": (b, b.relu())}


def _lenet(net: nn.Module, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    a = net.conv1(x)
    b = net.conv2(nn.functional.avg_pool2d(a.tanh(), 2))
    return {"conv1": (a, a.tanh()), "conv2": (b, b.tanh())}


def _residual(net: nn.Module, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    stem = net.stem(x)
    block = net.blocks[0]
    first = block[1](block[0](stem.relu()))
    second = block[4](block[3](first.relu()))  # the sum with what went past the block is not this layer's
    return {"stem": (stem, stem.relu()), "blocks.0.0": (first, first.relu()), "blocks.0.3": (second, second)}


def _transformer(net: nn.Module, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    patches = net.patches(x)
    return {"patches": (patches, patches)}


def _depthwise(net: nn.Module, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    a = net[0](x)
    b = net[3](net[2](net[1](a)))
    return {"0": (a, net[1](a)), "2": (b, net[4](b))}


BY_HAND = {
    "Perceptron": _perceptron,
    "TanhLeNet": _lenet,
    "Residual": _residual,
    "Transformer": _transformer,
    "Depthwise": _depthwise,
}


@pytest.mark.parametrize("target", ["pytorch_lightning.Trainer", "mine.not_a_network"])
def test_what_the_command_names_as_something_else_is_no_network(
    target: str, run: Done, analyze: Command, home: Path, tmp_path: Path
) -> None:
    content = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["network"] = {"_target_": target}
    torch.save(content, tmp_path / "planted.ckpt")
    words = () if "mine" not in target else ("--config-dir", str(home / "my_conf" / "network"))
    done = analyze(*words, "analysis=filters", f"ckpt_path={tmp_path / 'planted.ckpt'}", cwd=tmp_path)
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert f"is of the network {target}. Classes from outside this package are imported only if" in done.err


def test_a_huge_network_is_not_built_for_weights_that_are_not_its_own(run: Done, tmp_path: Path) -> None:
    content = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["batchnorm"] = False
    for options in ({"hidden": 10**7}, {"depth": 10**9}):
        content["hyper_parameters"]["network"] = {"_target_": "cnn_mnist.networks.mlp.MLP", **options}
        torch.save(content, tmp_path / "planted.ckpt")
        for trusted in ([], ["cnn_mnist.networks.mlp.MLP"]):
            with pytest.raises(
                ValueError, match=r"is a checkpoint of another kind of network|depth must be from 1 to 100"
            ):
                cnn_mnist.load_network(tmp_path / "planted.ckpt", trusted=trusted)


class Odd(nn.Module):
    """What networks of others may hold: a masked buffer, tokens, a scalar, a parametrised layer, a 1x1 map."""

    def __init__(self, sizes: list[int] | None = None, num_classes: int = 10) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.rows = nn.Linear(28, 16)
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 6, 5, stride=4))
        self.last = nn.Conv2d(6, 8, 6)
        self.head = nn.Linear(8 + 28 * 16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.relu(self.rows(x[:, 0])) * self.scale
        maps = torch.relu(self.conv(x))
        maps = torch.relu(self.last(nn.functional.avg_pool2d(input=maps, kernel_size=1)))
        return self.head(torch.cat([maps.flatten(1), tokens.flatten(1)], 1))


def test_odd_layers_are_looked_at_or_left_out() -> None:
    network = Odd().eval()
    assert not_finite(network) is None
    rows = architecture(network)
    assert [row.name for row in rows if row.kind == "conv"] == ["Conv1", "Conv2"]
    assert total(rows).num_parameters == sum(p.numel() for p in network.parameters())
    assert layers.main_layers(network) == ["conv"]
    images, labels = torch.rand(2, 1, 28, 28), torch.tensor([3, 4])
    assert saliency(network, images, labels).grad_cam.shape == (2, 28, 28)
    tokens = layers.outputs(network, images, ["rows"])["rows"].after.detach()
    assert len(draw.overview(images, labels, tokens, "rows").groups) == 2
    assert len(draw.channels(images[0], tokens[0], "rows").groups) == 1
    module = Classifier(weight_decay=0.1)
    module.network = network
    optimised = sum(len(group["params"]) for group in module.configure_optimizers().param_groups)
    assert optimised == len(list(network.parameters()))


def test_what_a_network_overwrites_is_kept_as_it_was() -> None:
    conv = nn.Conv2d(1, 2, 3, padding=1)

    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.relu(self.conv(x))
            h += x
            return h.flatten(1).relu_()

    images = torch.rand(1, 1, 28, 28)
    found = layers.outputs(Overwriting(), images, ["conv"])["conv"]
    torch.testing.assert_close(found.before, conv(images))
    torch.testing.assert_close(found.after, conv(images).relu())


def test_the_network_that_an_argument_makes_is_on_record(train: Command, home: Path) -> None:
    (home / "sizes.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self, sizes, lr, num_classes):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(784, sizes[0]), nn.Linear(sizes[0], num_classes))\n"
    )
    (home / "my_conf" / "network" / "sizes.yaml").write_text("_target_: sizes.Net\nsizes: [24, 12]\nlr: 7\n")
    done = trained(train, home, *CONFIG, "network=sizes", "callbacks=none")
    assert done.results["num_parameters"] == 785 * 24 + 250


@pytest.mark.parametrize("name", ["Perceptron", "Depthwise"])
def test_occlusion_of_any_network_is_what_captum_finds(name: str) -> None:
    from captum.attr import Occlusion

    torch.manual_seed(0)
    network = vars(own_networks)[name]().eval()
    images, labels = torch.rand(2, 1, 28, 28), torch.tensor([3, 4])
    ours = occlusion.mean_drop(occlusion.occlusion_map(network, images, labels, window=7, stride=3))
    theirs = Occlusion(lambda x: network(x).softmax(1)).attribute(
        images, target=labels, sliding_window_shapes=(1, 7, 7), strides=3, baselines=0.5
    )
    np.testing.assert_allclose(ours.numpy(), theirs[:, 0].detach().numpy(), atol=1e-6)


@pytest.mark.slow
def test_they_are_swept_and_searched(train: Command, analyze: Command, search: Command, home: Path) -> None:
    words = ("data=digits", "trainer=cpu", "trainer.max_epochs=1")
    swept = train("-m", *CONFIG, f"network={','.join(map(str.lower, NETWORKS))}", *words, "callbacks=none", cwd=home)
    assert swept.status == 0, swept.err
    compared = analyze(f"sweep={swept.folder}", cwd=home)
    assert compared.status == 0, compared.err
    assert len(compared.results["seeds"]["configurations"]) == len(NETWORKS)
    found = search(
        *CONFIG, "--trials", "2", "network=choice(perceptron,depthwise)", *words, "data.val_size=300", cwd=home
    )
    assert found.status == 0, found.err
    assert "best" in found.out
