"""The architecture table against the numbers of the report's section 3.1."""

import pytest

from cnn_mnist.analysis.architecture import Layer, Total, architecture, total
from cnn_mnist.network import CNN


def test_every_row_of_the_report() -> None:
    assert architecture(CNN()) == [
        Layer("Conv1", "conv", "conv1", (1, 28, 28), (32, 28, 28), 320, 25_088),
        Layer("MaxPool1", "pool", "", (32, 28, 28), (32, 14, 14), 0, 0),
        Layer("Conv2", "conv", "conv2", (32, 14, 14), (32, 14, 14), 9_248, 6_272),
        Layer("MaxPool2", "pool", "", (32, 14, 14), (32, 7, 7), 0, 0),
        Layer("FC1", "fc", "fc1", (1568,), (500,), 784_500, 500),
        Layer("FC2", "fc", "fc2", (500,), (10,), 5_010, 10),
        Layer("Softmax", "softmax", "", (10,), (10,), 0, 0),
    ]


def test_the_reports_sums_and_shares() -> None:
    layers = architecture(CNN())
    assert total(layers) == Total(799_078, 31_870)
    assert total(layers, "conv") == Total(9_568, 31_360)
    assert total(layers, "fc") == Total(789_510, 510)
    assert round(total(layers, "conv").num_parameters / total(layers).num_parameters, 4) == 0.0120


@pytest.mark.parametrize("training", [False, True])
def test_batch_normalisation_adds_three_layers_and_the_network_is_left_as_it_was(training: bool) -> None:
    network = CNN(batchnorm=True).train(training)
    layers = architecture(network)
    assert [layer.num_parameters for layer in layers if layer.kind == "norm"] == [64, 64, 1000]
    assert total(layers) == Total(800_206, 31_870)
    assert network.training is training
    assert network.norm2.num_batches_tracked == 0
