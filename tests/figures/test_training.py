"""Figures of training: their size and texts."""

import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from cnn_mnist.figures import canvas
from cnn_mnist.figures import training as figures


def texts(figure: Figure) -> dict[str, str]:
    """Every caption with its colour."""
    return {text.get_text(): to_hex(text.get_color()) for text in figure.axes[0].texts}


def test_predictions_say_true_and_predicted_class_and_mark_mistakes() -> None:
    probability = torch.tensor([[0.1, 0.9], [0.1, 0.9], [1.0, 0.0]])
    figure = figures.predictions(torch.rand(3, 1, 28, 28), torch.tensor([1, 0, 0]), probability, num_columns=2)
    assert texts(figure) == {
        "true 1\npredicted 1 (90.0%)": canvas.RIGHT,
        "true 0\npredicted 1 (90.0%)": canvas.WRONG,
        "true 0\npredicted 0 (>99.9%)": canvas.RIGHT,
    }


def test_samples_stand_under_their_labels_with_ink_dark() -> None:
    images = torch.zeros(3, 1, 28, 28)
    images[0] = 1
    figure = figures.sample_grid(images, torch.tensor([5, 0, 4]), num_columns=3)
    assert [text.get_text() for text in figure.axes[0].texts] == ["5", "0", "4"]
    pixels = canvas.to_pixels(figure)
    assert pixels.dtype.name == "uint8"
    assert pixels.shape[2] == 3
    x, y = figure.axes[0].texts[0].get_position()
    column, row = figure.axes[0].transData.transform((x, y + 15)).astype(int)
    assert (pixels[len(pixels) - row, column] == 0).all()


def test_the_confusion_matrix_counts_right_and_wrong() -> None:
    counts = torch.tensor([[90, 10, 0], [0, 80, 0], [1, 0, 19]])
    figure = figures.confusion_matrix(counts, "200 test images")
    assert figure.axes[0].get_title() == "200 test images: 189 right (94.50%), 11 wrong"
    assert [text.get_text() for text in figure.axes[0].texts] == ["90", "10", "0", "0", "80", "0", "1", "0", "19"]
    assert canvas.to_pixels(figure).size > 0
