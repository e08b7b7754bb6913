"""Figures of attacks: texts and colours match the results."""

import pytest
import torch
from matplotlib.colors import to_rgba

from cnn_mnist import published
from cnn_mnist.attacks import AttackResult
from cnn_mnist.attacks.robustness import RobustAccuracy
from cnn_mnist.attacks.transfer import Transfer
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures.canvas import Lines, cost_curves, draw_lines, overlaid
from cnn_mnist.figures.render import to_pixels
from cnn_mnist.figures.tiles import Tiles


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


def words(figure: Tiles) -> dict[str, str]:
    """The captions of all tiles, each with its tone."""
    return {tile.caption: tile.tone for group in figure.groups for tile in group}


def test_fooling_images_say_what_they_are_taken_for() -> None:
    figure = draw.fooling_images(record())
    assert words(figure) == {"as 1\np 0.750": "right", "as 2\np 0.125": "wrong", "as 0\np 0.500": "right"}


def test_a_grid_has_a_place_for_every_pair() -> None:
    images, labels = torch.zeros(2, 1, 28, 28), torch.tensor([0, 1])
    result = record(target=torch.tensor([1, 2, 0]))
    figure = draw.grid_of_targets(images, labels, result, torch.tensor([0, 0, 1]), num_classes=3)
    assert [[(tile.caption, tile.tone, int(tile.pixels[0, 0, 0])) for tile in row] for row in figure.groups] == [
        [("the 0 itself", "strong", 255), ("as 1\np 0.75", "right", 191), ("as 2\np 0.12", "wrong", 191)],
        [("as 0\np 0.50", "right", 191), ("the 1 itself", "strong", 255), ("not attacked", "faint", 255)],
    ]
    assert "median MSE of the successes 0.0100" in figure.title


def test_sums_say_what_is_seen() -> None:
    figure = draw.sums(torch.zeros(3, 1, 28, 28), torch.tensor([4, 5, 6]), record(), "title")
    assert [[tile.caption for tile in group] for group in figure.groups] == [
        ["4", "+", "= 1\np 0.750"],
        ["5", "+", "= 9\nnot 2"],
        ["6", "+", "= 0\np 0.500"],
    ]
    assert [group[2].tone for group in figure.groups] == ["right", "wrong", "right"]
    assert figure.bar is not None
    assert figure.bar[1:3] == pytest.approx((-0.1, 0.1))
    untargeted = draw.sums(torch.zeros(3, 1, 28, 28), torch.tensor([4, 5, 6]), record(target=torch.full((3,), -1)), "t")
    assert words(untargeted)["= 9\np 0.125"] == "wrong"


def test_transfer_marks_the_noises_own_class() -> None:
    figure = draw.transfer_grid(
        torch.zeros(2, 1, 28, 28),
        torch.tensor([3, 4]),
        torch.zeros(2, 1, 28, 28),
        torch.tensor([7, 4]),
        torch.tensor([[7, 9], [3, 4]]),
    )
    seen = words(figure)
    assert (seen["3 seen as 7"], seen["4 seen as 9"], seen["4 seen as 4"]) == ("wrong", "right", "")
    assert figure.headings == ["Noise made for the class 7", "Noise made for the class 4"]
    rates = torch.tensor([0.5, 0.25])
    found = Transfer(torch.zeros(8), torch.zeros(2, 8), rates, rates / 2, rates / 4, rates / 8)
    bars = draw.transfer_rates(found, rates, "x")
    heights = [bar.get_height() for bar in bars.axes[0].patches]
    assert heights == pytest.approx([0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625, 0.03125])


WHOLE = {"steps": 50, "restarts": 10, "num_images": 10_000}


def test_robustness_is_drawn_beside_what_others_report() -> None:
    found = RobustAccuracy(torch.tensor([0.0, 0.3]), torch.tensor([0.99, 0.5]), torch.rand(2, 10))
    beside = published.beside("pgd", "linf", "mnist", **WHOLE)
    chart = draw.robustness(found, beside, attack="pgd", norm="linf", num_images=10_000)
    known = {line.label: line for line in chart.lines}
    assert known["this network, pgd"].y == pytest.approx([0.99, 0.5])
    assert known["Wong et al. 2020, PGD-50 x 10"].y == [0.8877]
    assert set(known) == {"this network, pgd", "Wong et al. 2020, PGD-50 x 10", "chance"}
    assert len(draw.robustness_by_class(found, norm="linf").axes[0].lines) == 10
    assert to_pixels(chart).shape[2] == 3


@pytest.mark.parametrize(
    ("attack", "norm", "dataset", "changed", "expected"),
    [
        ("pgd", "linf", "mnist", {}, ["PGD-50 x 10"]),
        ("pgd", "linf", "mnist", {"steps": 100, "restarts": 50}, ["PGD-100 x 50"]),
        ("pgd", "linf", "mnist", {"steps": 40, "restarts": 1}, []),
        ("pgd", "linf", "mnist", {"num_images": 1000}, []),
        ("pgd", "l2", "mnist", {}, []),
        ("pgd", "linf", "kmnist", {}, []),
        ("fgsm", "linf", "mnist", {"steps": 1, "restarts": 1}, ["FGSM"]),
        ("auto", "linf", "mnist", {}, ["AutoAttack"] * 4),
        ("square", "linf", "mnist", {}, []),
    ],
)
def test_only_the_same_attack_on_as_many_images_stands_beside(
    attack: str, norm: str, dataset: str, changed: dict[str, int], expected: list[str]
) -> None:
    assert [one.attack for one in published.beside(attack, norm, dataset, **WHOLE | changed)] == expected


def chart_of(values: list[float]) -> Lines:
    found = RobustAccuracy(torch.tensor([0.0, 0.3]), torch.tensor(values), torch.rand(2, 10))
    one_step = {"steps": 1, "restarts": 1, "num_images": 10_000}
    beside = published.beside("fgsm", "linf", "mnist", **one_step)
    return draw.robustness(found, beside, attack="fgsm", norm="linf", num_images=10_000)


def test_two_networks_stand_on_the_same_axes_and_what_others_report_once() -> None:
    both = draw_lines(overlaid((chart_of([0.99, 0.5]), chart_of([0.98, 0.9])), ["plain", "robust"]))
    drawn = {str(line.get_label()): line for line in both.axes[0].lines}
    assert list(drawn) == ["plain, fgsm", "robust, fgsm", "Madry et al. 2018, FGSM", "chance"]
    assert list(drawn["robust, fgsm"].get_ydata()) == pytest.approx([0.98, 0.9])
    assert drawn["plain, fgsm"].get_linestyle() == "-"
    assert drawn["robust, fgsm"].get_linestyle() == "--"


def test_cost_curves_end_where_the_longest_does() -> None:
    trace = torch.full((500, 2), torch.nan)
    trace[:4, 0], trace[:2, 1] = torch.arange(4.0), torch.arange(2.0)
    figure = cost_curves(trace, ["a", "b"], "cost")
    assert [len(line.get_ydata()) for line in figure.axes[0].lines] == [4, 4]
    assert to_rgba(figure.axes[0].lines[0].get_color()) != to_rgba(figure.axes[0].lines[1].get_color())


def test_noises_are_named() -> None:
    assert words(draw.noises(torch.ones(2, 1, 28, 28), ["as 1", "as 2"])) == {"as 1": "", "as 2": ""}


def test_what_is_proven_of_two_networks_is_drawn_on_the_same_axes() -> None:
    charts = [draw.certified(torch.tensor(radii).double(), 4, 0.1) for radii in ([0.05, 0.1, 0.2], [0.01, 0.02, 0.3])]
    both = draw_lines(overlaid(charts, ["plain", "robust"]))
    first, second = both.axes[0].get_lines()
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    shares = dict(zip(first.get_xdata(), first.get_ydata(), strict=True))
    assert shares[0.0] == 0.75
    assert min(shares.values()) <= 0.25
