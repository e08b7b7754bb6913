"""An exported network computes the same as PyTorch, for any number of images, and has a model card."""

import io

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.report.export import files
from cnn_mnist.report.section import Section
from tests.conftest import ROOT, seen_by, trained


@pytest.fixture(scope="module")
def data() -> DataModule:
    digits = DataModule("digits")
    digits.setup()
    return digits


@pytest.fixture(scope="module", params=[False, True], ids=["baseline", "batchnorm"])
def network(request: pytest.FixtureRequest) -> CNN:
    return trained(request.param)


def exported(kind: str, network: CNN, data: DataModule) -> Section:
    subject = seen_by(network, data)
    subject.recipe = {"dataset": "digits", "lr": 3e-3, "schedule": None, "batchnorm": network.batchnorm}
    subject.run = {"recipe": "paper", "seed": 7, "num_train": 1500}
    return {"onnx": files.onnx, "torch": files.torch_program}[kind](subject, num_images=40)


def test_onnx_runtime_gives_the_same_logits(network: CNN, data: DataModule) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    part = exported("onnx", network, data)
    content = part.files["network.onnx"]
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content)
    for images in (data.test[:1].images, data.test[50:113].images):
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        np.testing.assert_allclose(logits, network(images).detach().numpy(), atol=1e-4)
    assert part.findings["max_difference"] < 1e-4
    assert str(ROOT).encode() not in content


def test_the_program_gives_the_same_logits(network: CNN, data: DataModule) -> None:
    part = exported("torch", network, data)
    module = torch.export.load(io.BytesIO(part.files["network.pt2"])).module()
    for images in (data.test[:1].images, data.test[50:113].images):
        torch.testing.assert_close(module(images), network(images), atol=1e-4, rtol=0)
    assert part.findings["num_same_class"] == 40
    assert str(ROOT).encode() not in part.files["network.pt2"]


def test_the_network_is_left_as_it_was(network: CNN, data: DataModule) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    exported("torch", network, data)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.conv2.weight.is_contiguous()
    assert not network.training


def test_the_card_says_what_was_measured(network: CNN, data: DataModule) -> None:
    part = exported("torch", network, data)
    card = part.files["MODEL_CARD.md"].decode()
    with torch.no_grad():
        accuracy = (network(data.test[:].images).argmax(1) == data.test.labels).double().mean().item()
    assert part.findings["test_accuracy"] == pytest.approx(accuracy)
    assert f"| accuracy, 297 test images | {100 * accuracy:.2f} % |" in card
    robust = part.findings["robust_accuracy"]["robust_acc"]
    assert 1 >= robust[0] >= robust[1] >= robust[2] >= 0
    assert f"1 start, Linf norm of the change at most 0.1, 40 test images | {100 * robust[0]:.1f} %" in card
    assert "| seed | 7 |" in card
    index = yaml.safe_load(card.split("---\n")[1])
    (result,) = index["model-index"][0]["results"]
    assert index["datasets"] == [result["dataset"]["type"]] == ["digits"]
    assert [metric["value"] for metric in result["metrics"]] == [part.findings["test_accuracy"], *robust]
    assert ("batch normalisation" in card) == network.batchnorm


def test_a_network_for_one_number_of_images_is_refused_with_a_hint(data: DataModule) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(784, 10)

        def forward(self, images: Tensor) -> Tensor:
            return self.last(images.flatten(1)) + torch.zeros(1, 10).expand(len(images), -1)

    with pytest.raises(ValueError, match=r"write images.shape\[0\] for len\(images\)"):
        files._exported(Counting())


def test_what_computes_something_else_is_refused(data: DataModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exported", lambda network: original(CNN()))
    with pytest.raises(
        ValueError, match=r"network.pt2 computes logits that differ from PyTorch's by up to .*: do not use it"
    ):
        exported("torch", trained(False), data)


original = files._exported
