"""Figures of training: their texts and numbers."""

import torch

from cnn_mnist.figures import training as figures
from cnn_mnist.figures.canvas import overlaid
from cnn_mnist.figures.class_names import class_names
from cnn_mnist.figures.render import to_pixels, to_svg


def test_predictions_say_true_and_predicted_class_and_mark_mistakes() -> None:
    probability = torch.tensor([[0.1, 0.9], [0.1, 0.9], [1.0, 0.0]])
    figure = figures.predictions(torch.rand(3, 1, 28, 28), torch.tensor([1, 0, 0]), probability)
    assert [(tile.caption, tile.tone) for (tile,) in figure.groups] == [
        ("true 1\npredicted 1\n90.0%", "right"),
        ("true 0\npredicted 1\n90.0%", "wrong"),
        ("true 0\npredicted 0\n>99.9%", "right"),
    ]


def test_samples_stand_over_their_labels_with_ink_dark() -> None:
    images = torch.zeros(3, 1, 28, 28)
    images[0] = 1
    figure = figures.sample_grid(images, torch.tensor([5, 0, 4]))
    assert [tile.caption for (tile,) in figure.groups] == ["5", "0", "4"]
    assert (figure.groups[0][0].pixels == 0).all()
    assert (figure.groups[1][0].pixels == 255).all()


def test_the_confusion_matrix_counts_right_and_wrong() -> None:
    counts = torch.tensor([[90, 10, 0], [0, 80, 0], [1, 0, 19]])
    figure = figures.confusion_matrix(counts, "200 test images")
    assert figure.axes[0].get_title() == "200 test images: 189 right (94.50%),\n11 wrong"
    assert [text.get_text() for text in figure.axes[0].texts] == ["90", "10", "0", "0", "80", "0", "1", "0", "19"]
    assert to_pixels(figure).size > 0


def test_curves_are_those_on_record() -> None:
    values = {"epoch": [1, 2], "train/loss": [0.5, 0.25], "test/acc": [0.9, None], "test/robust_acc": [0.1, 0.2]}
    charts = figures.curves(values)  # type: ignore[arg-type]
    assert [(line.label, list(line.y)) for line in charts["loss"].lines] == [("train", [0.5, 0.25])]
    assert [line.label for line in charts["accuracy"].lines] == ["test", "test, under attack"]


def test_lines_of_one_network_and_of_two_can_be_told_apart() -> None:
    values = {"epoch": [1], "train/acc": [0.5], "test/acc": [0.5], "test/robust_acc": [0.4], "test/fgsm_acc": [0.3]}
    chart = figures.curves(values)["accuracy"]  # type: ignore[arg-type]
    both = overlaid((chart, chart), ("one", "other"))
    assert len({(line.colour, line.style, line.is_hollow) for line in both.lines}) == 8


def test_a_dollar_in_the_name_of_a_class_is_a_dollar() -> None:
    with class_names(["$a$", "b_$", "c"]):
        figure = figures.confusion_matrix(torch.eye(3, dtype=torch.long), "3 images")
        assert to_pixels(figure).size > 0
    assert b"b_$" in to_svg(figure)
