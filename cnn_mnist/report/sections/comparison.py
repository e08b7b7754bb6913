"""Two networks on the same test images: which one is better, how sure that is, and what it cost."""

from typing import Any

import torch

from cnn_mnist.analysis.statistics import LEVEL, mcnemar
from cnn_mnist.figures import training as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.published import LAB_REPORT
from cnn_mnist.report.differences import differences, in_words
from cnn_mnist.report.section import Answer, Section, Table, needs
from cnn_mnist.report.subject import Subject, name_of
from cnn_mnist.runs.metrics import read_curves

NUM_SHOWN = 24  # images on which the two differ


@needs(images=False, other=True)
def comparison(subject: Subject) -> Section:
    """Which of two networks is better, is that more than chance, and what did it cost? The second is the other."""
    assert subject.test is not None
    assert subject.other is not None
    sides = (subject, subject.other)
    labels = subject.test.labels
    right = [side.probability.argmax(1) == labels for side in sides]
    found = mcnemar(*right)
    findings: dict[str, Any] = {
        **found._asdict(),
        **{f"{name}_points": 100 * getattr(found, name) for name in ("difference", "low", "high")},
        "differences": differences(subject.recipe, subject.other.recipe),
        "level": LEVEL,
        "first": {"name": name_of(subject, subject.other), "accuracy": right[0].double().mean().item()},
        "second": {"name": name_of(subject.other, subject), "accuracy": right[1].double().mean().item()},
    }
    for key, side in zip(("first", "second"), sides, strict=True):
        findings[key] |= {
            name: side.run[name] for name in ("fit_seconds", "epochs", "num_threads", "device") if name in side.run
        }
    if leads := _leads(*(read_curves(side.folder / "metrics.csv") for side in sides)):
        findings["leads"] = leads
    has_norm = [side.is_normalised for side in sides]
    is_only_norm = [one["key"] for one in findings["differences"]] == ["batchnorm"]
    if subject.dataset == "mnist" and is_only_norm and has_norm == [False, True]:
        findings["lab_report_time_ratio"] = LAB_REPORT[True]["fit_seconds"] / LAB_REPORT[False]["fit_seconds"]
    differing = (right[0] != right[1]).nonzero()[:, 0]
    shown = differing[torch.linspace(0, len(differing) - 1, min(NUM_SHOWN, len(differing))).round().long()]
    tensors = {"comparison": {"labels": labels, "first_right": right[0], "second_right": right[1]}}
    figures: dict[str, Picture] = {}
    if len(shown):
        figures["comparison/differences"] = draw.differences(
            subject.test[shown].images, labels[shown], *(side.probability[shown] for side in sides)
        )
    answers = [Answer(_question(*sides), list(figures), _says(findings), [_table(findings)])]
    return Section(findings, answers, tensors, figures)


def _leads(first: dict[str, list[Any]], second: dict[str, list[Any]]) -> dict[str, int]:
    """After how many epochs each network had the higher test accuracy; empty where the epochs cannot be compared."""
    curves = [one.get("test/acc", [None]) for one in (first, second)]
    if None in curves[0] + curves[1] or len(curves[0]) != len(curves[1]) or len(curves[0]) < 2:
        return {}
    pairs = list(zip(*curves, strict=True))
    return {
        "epochs": len(pairs),
        "first": sum(one > other for one, other in pairs),
        "second": sum(one < other for one, other in pairs),
    }


def _says(findings: dict[str, Any]) -> list[str]:
    """The answer, in sentences."""
    low, high = findings["low"], findings["high"]
    verdict = (
        "{second.name} is better" if low > 0 else "{first.name} is better" if high < 0 else "no difference is shown"
    )
    says = [
        "Of the same {num_images} test images, {second.name} classifies {second.accuracy:.2%} correctly and "
        "{first.name} {first.accuracy:.2%}: a difference of {difference_points:+.2f} percentage points "
        "({level:.0%} interval {low_points:+.2f} to {high_points:+.2f}). {second_only} images are "
        "classified correctly by {second.name} alone, {first_only} by {first.name} alone (McNemar's test: "
        f"p = {{p:.2g}}): {verdict}."
    ]
    times = [findings[key].get("fit_seconds") for key in ("first", "second")]
    if None not in times:
        findings["time_ratio"] = times[1] / times[0]
        alike = all(
            findings["first"].get(key) == findings["second"].get(key) for key in ("epochs", "num_threads", "device")
        )
        where = "" if alike else " (not for as many epochs, or not on the same machine)"
        says.append(
            "Training took {time_ratio:.2f} times as long: {second.fit_seconds:.0f} s against "
            f"{{first.fit_seconds:.0f}} s{where}."
        )
    if len(findings["differences"]) > 1:
        different = in_words(findings["differences"], "differences")
        says.append(f"The two were trained with different options: {different}.")
    if "leads" in findings:
        says.append(
            "After {leads.first} of {leads.epochs} epochs the test accuracy of {first.name} was the higher one, after "
            "{leads.second} that of {second.name}."
        )
    says.append("One run of each: this speaks for these two networks, and says nothing of other seeds.")
    return says


def _table(findings: dict[str, Any]) -> Table:
    rows = [[f"{{{key}.name}}", f"{{{key}.accuracy:.2%}}", f"{{{key}_only}}"] for key in ("first", "second")]
    columns = ["network", "test accuracy", "right where the other is wrong"]
    if "time_ratio" in findings:
        columns.append("training, s")
        for key, row in zip(("first", "second"), rows, strict=True):
            row.append(f"{{{key}.fit_seconds:.0f}}")
    return Table("The same test images", columns, rows)


def _question(first: Subject, second: Subject) -> str:
    if [one["key"] for one in differences(first.recipe, second.recipe)] == ["batchnorm"]:
        return "Does batch normalisation help, and what does it cost?"
    return f"Is {name_of(second, first)} better than {name_of(first, second)}, and what does it cost?"
