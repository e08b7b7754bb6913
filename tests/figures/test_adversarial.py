"""Figures of attacks: texts and colours match the results."""

import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from cnn_mnist.attacks import AttackResult
from cnn_mnist.attacks.robustness import RobustAccuracy
from cnn_mnist.attacks.transfer import Transfer
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures.canvas import DARK, RIGHT, WRONG, cost_curves, to_pixels


def record(**fields: object) -> AttackResult:
    """Three attacks, the second of which failed."""
    values = {
        "images": torch.full((3, 1, 28, 28), 0.25),
        "perturbation": torch.full((3, 1, 28, 28), 0.1),
        "target": torch.tensor([1, 2, 0]),
        "predicted": torch.tensor([1, 9, 0]),
        "confidence": torch.tensor([0.75, 0.125, 0.5]),
        "success": torch.tensor([True, False, True]),
        "steps": torch.tensor([1, 2, 1]),
        "trace": torch.tensor([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [torch.nan, 3.0, torch.nan]]),
    }
    return AttackResult(**(values | fields))  # type: ignore[arg-type]


def words(figure: Figure) -> dict[str, str]:
    return {text.get_text(): text.get_color() for text in figure.axes[0].texts}


def test_fooling_images_say_what_they_are_taken_for() -> None:
    figure = draw.fooling_images(record())
    assert words(figure) == {"as 1\np 0.750": RIGHT, "as 2\np 0.125": WRONG, "as 0\np 0.500": RIGHT}


def test_a_grid_has_a_place_for_every_pair() -> None:
    images, labels = torch.zeros(2, 1, 28, 28), torch.tensor([0, 1])
    result = record(target=torch.tensor([1, 2, 0]))
    figure = draw.grid_of_targets(images, labels, result, torch.tensor([0, 0, 1]), num_classes=3)
    found = [(text.get_text(), text.get_color()) for text in figure.axes[0].texts]
    assert found == [
        ("the 0 itself", "black"),
        ("as 1, p 0.75", RIGHT),
        ("as 2, p 0.12", WRONG),
        ("as 0, p 0.50", RIGHT),
        ("the 1 itself", "black"),
        ("not attacked", "grey"),
    ]
    assert "median MSE of the successes 0.0100" in figure.texts[0].get_text()


def test_sums_say_what_is_seen() -> None:
    figure = draw.sums(torch.zeros(3, 1, 28, 28), torch.tensor([4, 5, 6]), record(), "title")
    assert {"= 1, p 0.750": RIGHT, "= 9, not 2": WRONG, "= 0, p 0.500": RIGHT}.items() <= words(figure).items()
    assert {"4", "5", "6", "+"} <= words(figure).keys()
    assert figure.axes[1].get_ylim() == pytest.approx((-0.1, 0.1))
    untargeted = draw.sums(torch.zeros(3, 1, 28, 28), torch.tensor([4, 5, 6]), record(target=torch.full((3,), -1)), "t")
    assert words(untargeted)["= 9, p 0.125"] == WRONG


def test_transfer_marks_the_noises_own_class() -> None:
    figure = draw.transfer_grid(
        torch.zeros(2, 1, 28, 28),
        torch.tensor([3, 4]),
        torch.zeros(2, 1, 28, 28),
        torch.tensor([7, 4]),
        torch.tensor([[7, 9], [3, 4]]),
    )
    seen = words(figure)
    assert (seen["3: seen as 7"], seen["4: seen as 9"], seen["4: seen as 4"]) == (WRONG, DARK, "black")
    assert {"noise made\nfor the 7", "noise made\nfor the 4"} <= seen.keys()
    rates = torch.tensor([0.5, 0.25])
    found = Transfer(torch.zeros(8), torch.zeros(2, 8), rates, rates / 2, rates / 4, rates / 8)
    bars = draw.transfer_rates(found, rates, "x")
    heights = [bar.get_height() for bar in bars.axes[0].patches]
    assert heights == pytest.approx([0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625, 0.03125])


def test_robustness_is_drawn_beside_what_others_report_for_the_same_norm_and_attack_alone() -> None:
    found = RobustAccuracy(torch.tensor([0.0, 0.3]), torch.tensor([0.99, 0.5]), torch.rand(2, 10))
    figure = draw.robustness(found, attack="pgd", norm="linf", num_images=7, dataset="mnist")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["this network, pgd"].get_ydata().tolist() == pytest.approx([0.99, 0.5])
    for source, accuracy in {
        "Madry et al. 2018, PGD-100 x 50": 0.8962,
        "Wong et al. 2020, PGD-50 x 10": 0.8877,
    }.items():
        assert (lines[source].get_xdata()[0], lines[source].get_ydata()[0]) == (0.3, accuracy)
    assert not [name for name in lines if "AutoAttack" in str(name) or "FGSM" in str(name)]
    one_step = draw.robustness(found, attack="fgsm", norm="linf", num_images=7, dataset="mnist")
    sources = [str(line.get_label()) for line in one_step.axes[0].lines]
    assert sources == ["this network, fgsm", "Madry et al. 2018, FGSM", "chance"]
    assert len(figure.axes[1].lines) == 10
    assert len(draw.robustness(found, attack="pgd", norm="l2", num_images=7, dataset="mnist").axes[0].lines) == 2
    assert len(draw.robustness(found, attack="pgd", norm="linf", num_images=7, dataset="kmnist").axes[0].lines) == 2
    assert to_pixels(figure).shape[2] == 3


def test_cost_curves_end_where_the_longest_does() -> None:
    trace = torch.full((500, 2), torch.nan)
    trace[:4, 0], trace[:2, 1] = torch.arange(4.0), torch.arange(2.0)
    figure = cost_curves(trace, ["a", "b"], "cost")
    assert [len(line.get_ydata()) for line in figure.axes[0].lines] == [4, 4]
    assert to_rgba(figure.axes[0].lines[0].get_color()) != to_rgba(figure.axes[0].lines[1].get_color())


def test_noises_are_named() -> None:
    assert words(draw.noises(torch.ones(2, 1, 28, 28), ["as 1", "as 2"])) == {"as 1": "black", "as 2": "black"}
