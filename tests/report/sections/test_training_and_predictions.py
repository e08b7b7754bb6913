"""The report's section 3.1, measured: sizes, curves, mistakes."""

import inspect
import math
from pathlib import Path

import pytest
import torch

from cnn_mnist.data.batches import Images
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.report.prose import plain
from cnn_mnist.report.sections.predictions import predictions
from cnn_mnist.report.sections.training import training
from cnn_mnist.training.module import Classifier
from tests.conftest import seen_by, trained


@pytest.fixture(scope="module")
def data() -> DataModule:
    digits = DataModule("digits")
    digits.setup()
    return digits


def test_sizes_are_the_reports(data: DataModule) -> None:
    found = training(seen_by(CNN(), data)).findings
    assert (found["num_parameters"], found["num_neurons"]) == (799_078, 31_870)
    assert found["conv"]["parameter_share"] == pytest.approx(0.0120, abs=5e-5)
    assert found["fc"]["neuron_share"] == pytest.approx(0.0160, abs=5e-5)
    assert [row["name"] for row in found["architecture"]][-1] == "Softmax"
    assert found["architecture"][0]["parameters_per_neuron"] == pytest.approx(320 / 25_088)


def test_curves_are_those_on_record_and_the_training_loss_is_a_mean(data: DataModule, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,test/acc,test/loss,train/acc,train/loss\n"
        "0,50,,,,0.9\n0,100,,,,0.5\n0,100,,,0.8,\n0,100,0.91,0.3,,\n"
        "1,190,,,,0.1\n1,200,,,,0.7\n1,200,0.95,0.1,0.9,\n"
    )
    part = training(seen_by(CNN(), data, tmp_path))
    assert part.findings["curves"] == {
        "epoch": [1, 2],
        "train/loss": [pytest.approx(0.7), pytest.approx(0.16)],  # of 90 steps and of 10
        "test/loss": [0.3, 0.1],
        "train/acc": [0.8, 0.9],
        "test/acc": [0.91, 0.95],
    }
    assert {"training/loss", "training/accuracy"} <= part.figures.keys()


def test_without_a_record_it_says_so(data: DataModule) -> None:
    part = training(seen_by(CNN(), data))
    assert "training/loss" not in part.figures
    assert any("There is no record of the training" in sentence for answer in part.answers for sentence in answer.says)


def test_mistakes_are_the_networks_own(data: DataModule) -> None:
    network = trained(False)
    part = predictions(seen_by(network, data))
    with torch.no_grad():
        probability = network(data.test[:].images).softmax(1)
    confidence, predicted = probability.max(1)
    is_wrong = predicted != data.test.labels
    found = part.findings
    assert found["num_wrong"] == int(is_wrong.sum()) > 0
    assert found["accuracy"] == pytest.approx(1 - found["num_wrong"] / len(is_wrong))
    assert found["num_sure_mistakes"] == int((confidence[is_wrong] >= 0.9).sum())
    first = found["mistakes"][0]
    assert is_wrong[first["index"]]
    assert first["confidence"] == pytest.approx(confidence[is_wrong].max().item(), abs=1e-5)
    assert (first["label"], first["predicted"]) == (data.test.labels[first["index"]], predicted[first["index"]])
    assert torch.tensor(found["confusion_matrix"]).trace() == found["num_right"]
    most = found["most_common_mistake"]
    assert most["count"] == int(((data.test.labels == most["label"]) & (predicted == most["predicted"])).sum())
    text = plain(part.answers[0].says[0], found)
    assert f"{found['num_right']} of 297 test images are classified correctly" in text


def test_a_network_without_mistakes_shows_none(data: DataModule) -> None:
    subject = seen_by(CNN(), data)
    subject.probability = torch.nn.functional.one_hot(data.test.labels, 10).float()
    part = predictions(subject)
    assert part.findings["num_wrong"] == 0
    assert set(part.figures) == {"predictions/random", "predictions/confusion_matrix"}


def test_the_final_test_is_no_epoch_and_the_accuracy_under_attack_is_shown(data: DataModule, tmp_path: Path) -> None:
    header = "epoch,step,test/acc,train/acc,train/loss,val/acc,val/robust_acc\n"
    rows = "0,10,,0.5,0.9,,\n0,10,,,,0.6,\n0,10,,,,,0.3\n1,20,,0.7,0.5,,\n1,20,,,,0.8,\n1,20,,,,,0.4\n"
    expected = {
        "epoch": [1, 2],
        "train/loss": [0.9, 0.5],
        "train/acc": [0.5, 0.7],
        "val/acc": [0.6, 0.8],
        "val/robust_acc": [0.3, 0.4],
    }
    for final in (",21,0.79,,,,\n", "2,21,0.79,,,,\n"):  # as it is written, and as it was
        (tmp_path / "metrics.csv").write_text(header + rows + final)
        part = training(seen_by(CNN(), data, tmp_path))
        assert part.findings["curves"] == expected
        (table,) = part.answers[-1].tables
        assert table.columns == ["epoch", "train/loss", "train/acc", "val/acc", "val/robust_acc"]
        assert len(table.rows) == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "had 98.94 % with the same layers and the same training"),
        ({"kernel_size": 7}, "the report's differ in kernel_size (7 and 3)."),
        ({"lr": 0.1, "epochs": 1}, "the report's differ in epochs (1 and 6), lr (0.1 and 0.001)."),
    ],
)
def test_the_lab_report_is_compared_with_its_like_alone(
    changed: dict[str, object], says: str, data: DataModule
) -> None:
    subject = seen_by(trained(False), data)
    subject.dataset = "mnist"
    subject.recipe = {"dataset": "mnist", "epochs": 6, "lr": 1e-3, "kernel_size": 3} | changed
    part = predictions(subject)
    assert says in plain(" ".join(part.answers[0].says), part.findings)


def test_every_option_of_training_that_the_lab_report_did_not_have_is_a_difference(data: DataModule) -> None:
    subject = seen_by(trained(False), data)
    subject.dataset = "mnist"
    usual = {name: one.default for name, one in inspect.signature(Classifier).parameters.items()}
    switched_on = {name for name, value in usual.items() if value in (0, None) and not isinstance(value, bool)}
    of_attacks = {"attack_steps", "warmup_epochs", "bound_weight"}  # without an epsilon they change nothing
    for name in (
        switched_on - of_attacks - {"cooldown_epochs", "classes", "optimizer"}
    ):  # of a distortion; or not training
        subject.recipe = {name: 0.3}
        differing = predictions(subject).findings["differs_from_lab_report"]
        assert [one["key"] for one in differing] == [name]
    for name, value in (("num_train", 6_000), ("precision", "bf16-mixed"), ("averaged_weights", True)):
        subject.recipe, subject.run = {}, {name: value}
        assert [one["key"] for one in predictions(subject).findings["differs_from_lab_report"]] == [name]


def test_a_metric_of_ones_own_may_have_any_name(data: DataModule, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,test/acc,grad_2.0_norm/conv1.weight\n0,100,0.9,3.5\n")
    part = training(seen_by(CNN(), data, tmp_path))
    cells = [cell for answer in part.answers for table in answer.tables for row in table.rows for cell in row]
    assert "3.5" in plain(" ".join(cells), part.findings)


def test_a_class_without_images_is_not_the_hardest(data: DataModule) -> None:
    subject = seen_by(trained(False), data)
    assert subject.test is not None
    kept = subject.test.labels != 3
    subject.test = Images(subject.test.images[kept], subject.test.labels[kept])
    found = predictions(subject).findings
    by_class = found["accuracy_by_class"]
    assert math.isnan(by_class.pop(3))
    assert found["hardest_class_accuracy"] == min(by_class) > 0
    assert found["hardest_class"] != 3
