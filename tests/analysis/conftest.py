"""Networks that have learnt something, and the images they learnt it from."""

import functools

import pytest
import torch
import torch.nn.functional as F

from cnn_mnist.data import Batch, DataModule
from cnn_mnist.network import CNN


@pytest.fixture(scope="session")
def digits() -> Batch:
    """All test images of the digits."""
    data = DataModule("digits")
    data.setup()
    return data.test[torch.arange(len(data.test))]


@functools.cache
def trained(batchnorm: bool, kernel_size: int = 3) -> CNN:
    """A network after 40 steps on the digits: some 90 % right."""
    data = DataModule("digits")
    data.setup()
    torch.manual_seed(0)
    network = CNN(batchnorm, kernel_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(40):
        images, labels = data.train[torch.arange(step * 37, step * 37 + 100) % len(data.train)]
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()
