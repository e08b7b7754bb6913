"""What a report says first and last: its title, its abstract, and which of the lab report's claims hold."""

from collections.abc import Callable, Sequence
from string import Formatter
from typing import Any, NamedTuple

from cnn_mnist.report.dataset import SETS
from cnn_mnist.report.prose import Found, lookup

LAB_ATTACKS = ("non_targeted", "targeted", "noise", "universal")
STANDARD_ATTACKS = ("fgsm", "pgd", "deepfool", "carlini_wagner", "apgd", "square", "boundary", "auto", "checklist")
SEED_SPREAD = 0.002  # two standard deviations of the accuracy over seeds with batch normalisation, one without
CLEARLY = 2  # times the drop on the paper: when the drop on the digit is what shows
MARGIN = 0.05  # of the likeness to an edge detector, above which a difference from random filters is seen
MOST = 0.9  # share from which a claim about all of them holds
MUCH = 1.5  # times the training time that would still be called "severely affected", the lab report's words


def known(sentence: str, record: Found) -> bool:
    """Whether the record has every value that a sentence asks for."""
    try:
        return all(lookup(record, key) is not None for _, key, _, _ in Formatter().parse(sentence) if key)
    except KeyError:
        return False


def title(record: Found) -> str:
    """A sentence over the record that names the report."""
    if any(key in record for key in ("sweep", "seeds", "search", "committee")):
        return str(record["title"])
    if record["dataset"] == "picture":
        words = "A picture: {picture.name}" if known("{picture.name}", record) else "A picture"
        return words + " or {other.picture.name}" * known("{other.picture.name}", record)
    if record["dataset"] == "pictures":
        return "Pictures" + ": {pictures.num_read} classified" * known("{pictures.num_read}", record)
    is_pair = "other" in record
    has_convolutions = known("{training.conv.num_parameters}", record) and record["training"]["conv"]["num_parameters"]
    noun = "convolutional network" if has_convolutions else "image classifier"
    subject = f"Two {noun}s" if is_pair else f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"
    words = f"{subject} on {SETS.get(record['dataset'], record['dataset'])}"
    if known("{predictions.accuracy:.2%}", record):
        words += ": {predictions.accuracy:.2%}"
        if is_pair and known("{other.predictions.accuracy:.2%}", record):
            words += " and {other.predictions.accuracy:.2%}"
    if any(name in record for name in ("attack", *LAB_ATTACKS, *STANDARD_ATTACKS)):  # the first: of an attack alone
        words += f", and how to fool {'them' if is_pair else 'it'}"
    return words


class Finding(NamedTuple):
    """A sentence over the record, the tag of the figure that shows it, and what is added about a second network."""

    says: str
    figure: str
    second: str = ""


ABSTRACT = (
    Finding(
        "The network classifies {predictions.accuracy:.2%} of {predictions.num_images:,} test images correctly",
        "predictions/confusion_matrix",
        ", the second network {other.predictions.accuracy:.2%}",
    ),
    Finding(
        "{occlusion.resistant_share:.0%} of {occlusion.num_images:,} correctly classified images remain so wherever a "
        "patch of {occlusion.window} x {occlusion.window} pixels lies",
        "occlusion/resistance",
        " ({other.occlusion.resistant_share:.0%} by the second network)",
    ),
    Finding(
        "Starting from noise, an attack reaches {non_targeted.num_success} of {non_targeted.num_images} classes with "
        "high confidence; {non_targeted.likeness.num_digits} of its images are as near to a training image as test "
        "digits are",
        "non_targeted/images",
    ),
    Finding(
        "{targeted.num_success} of {targeted.num_images} targeted attacks succeed, with a median mean squared change "
        "of {targeted.median_mse:.4f}",
        "targeted/images",
        "; on the second network {other.targeted.num_success} of {other.targeted.num_images}, with "
        "{other.targeted.median_mse:.4f}",
    ),
    Finding(
        "If every pixel may change by {pgd.robust_accuracy.epsilon.2:g}, {pgd.robust_accuracy.robust_acc.2:.1%} of "
        "{pgd.num_images:,} test images are still classified correctly under PGD; with {pgd.epsilon:g}, "
        "{pgd.accuracy_after:.1%}",
        "pgd/robustness",
        " (the second network: {other.pgd.robust_accuracy.robust_acc.2:.1%} and {other.pgd.accuracy_after:.1%})",
    ),
)


def abstract(record: Found) -> list[Finding]:
    """The findings that the record knows, each a sentence over it without its full stop."""
    is_pair = "other" in record
    return [
        Finding(one.says + one.second * (is_pair and known(one.second, record)), one.figure)
        for one in ABSTRACT
        if known(one.says, record)
    ]


class Claim(NamedTuple):
    """A claim of the lab report, the evidence as a sentence over the record, the verdict from it, and figures."""

    says: str
    evidence: str
    verdict: Callable[[Callable[[str], Any]], str]
    figures: Sequence[str] = ()


class Evidence(NamedTuple):
    """What one network says about a claim: a sentence over its findings `found`, which lie at `prefix` in the record.

    `whose` is the key of the network's name; empty where there is one network, or the claim is about both.
    """

    whose: str
    says: str
    found: Found
    prefix: str
    verdict: str
    figures: Sequence[str]

    @property
    def which(self) -> slice:
        """Which of the figures of a tag show it: the first, or where there are two the last."""
        return slice(-1, None) if self.prefix else slice(0, 1)


def _holds(is_true: bool) -> str:
    return "holds" if is_true else "does not hold here"


def _improves(value: Callable[[str], Any]) -> str:
    value("comparison.lab_report_time_ratio")  # a KeyError, unless batch normalisation is the only difference
    if value("comparison.low") > 0:
        return "holds for these two runs"
    return _holds(False) if value("comparison.high") < 0 else "cannot be decided by one run of each"


CLAIMS = (
    Claim(
        "The network reaches the lab report's accuracy.",
        "{predictions.accuracy:.2%} (the lab report: {predictions.lab_report.accuracy:.2%})",
        lambda value: _holds(value("predictions.accuracy") >= value("predictions.lab_report.accuracy") - SEED_SPREAD),
        ["predictions/confusion_matrix"],
    ),
    Claim(
        "Batch normalisation improves the accuracy.",
        "{comparison.difference_points:+.2f} percentage points ({comparison.level:.0%} interval "
        "{comparison.low_points:+.2f} to {comparison.high_points:+.2f})",
        _improves,
        ["comparison/differences"],
    ),
    Claim(
        "Batch normalisation severely affects the training time.",
        "{comparison.time_ratio:.2f} times the time (the lab report: {comparison.lab_report_time_ratio:.2f})",
        lambda value: _holds(value("comparison.time_ratio") >= MUCH),
    ),
    Claim(
        "The convolutional layers have few of the parameters and most of the neurons.",
        "{training.conv.parameter_share:.2%} of the parameters and {training.conv.neuron_share:.2%} of the neurons",
        lambda value: _holds(
            value("training.conv.parameter_share") < 0.1 and value("training.conv.neuron_share") > 0.9
        ),
    ),
    Claim(
        "All filters are different from one another.",
        "the two closest of the first layer have a cosine similarity of {filters.conv1_closest_cosine:.2f}, of the "
        "second {filters.conv2_closest_cosine:.2f} (duplicates: from {filters.alike_from:g} on)",
        lambda value: _holds(
            max(value("filters.conv1_closest_cosine"), value("filters.conv2_closest_cosine"))
            < value("filters.alike_from")
        ),
        ["filters/similarity/conv1", "filters/similarity/conv2"],
    ),
    Claim(
        "Filters of this size show no recognisable pattern.",
        "likeness to an edge detector {filters.conv1_edge_likeness:.2f} in the first layer, of random filters "
        "{filters.conv1_edge_likeness_by_chance:.2f}",
        lambda value: _holds(
            value("filters.conv1_edge_likeness") < value("filters.conv1_edge_likeness_by_chance") + MARGIN
        ),
        ["filters/edges"],
    ),
    Claim(
        "Some channels of the first layer reproduce the digit, sharp or blurred.",
        "sharp: {activations.conv1_sharp_copies}; blurred: {activations.conv1_blurred_copies}",
        lambda value: _holds(
            bool(value("activations.conv1_sharp_copies") or value("activations.conv1_blurred_copies"))
        ),
        ["activations/conv1/statistics"],
    ),
    Claim(
        "The second layer is more abstract than the first.",
        "the channels' correlation with the image falls from {activations.conv1_correlation:.2f} to "
        "{activations.conv2_correlation:.2f}",
        lambda value: _holds(value("activations.conv2_correlation") < value("activations.conv1_correlation")),
        ["activations/conv1/statistics", "activations/conv2/statistics"],
    ),
    Claim(
        "Some images resist occlusion completely.",
        "{occlusion.resistant_share:.0%} of {occlusion.num_images:,} images",
        lambda value: _holds(value("occlusion.resistant_share") > 0),
        ["occlusion/resistance"],
    ),
    Claim(
        "Where the probability falls, the patch hid the digit and not the background.",
        "on the digit it falls by {occlusion.drop_on_ink:.3f} on average, on the paper by "
        "{occlusion.drop_on_paper:.3f}",
        lambda value: (
            "holds"
            if value("occlusion.drop_on_ink") > CLEARLY * value("occlusion.drop_on_paper")
            else "holds only in part"
            if value("occlusion.drop_on_ink") > value("occlusion.drop_on_paper")
            else "does not hold here"
        ),
        ["occlusion/probability"],
    ),
    Claim(
        "From noise, every class is reached with high confidence.",
        "{non_targeted.num_success} of {non_targeted.num_images}",
        lambda value: _holds(value("non_targeted.success_rate") == 1),
        ["non_targeted/images"],
    ),
    Claim(
        "These images do not look like digits.",
        "{non_targeted.likeness.num_digits} of {non_targeted.num_images} are as near to a training image as test "
        "digits are, which is no surprise on grey noise; traces of strokes are for the eye to judge",
        lambda value: _holds(value("non_targeted.likeness.num_digits") == 0),
        ["non_targeted/images"],
    ),
    Claim(
        "The cost increases with the iterations, whatever the target.",
        "it is highest at the end in {non_targeted.cost.ends_highest_share:.0%} of the non-targeted attacks, "
        "{noise.cost.ends_highest_share:.0%} of those that add noise and {targeted.cost.ends_highest_share:.0%} of the "
        "targeted ones, which give logit up for a smaller change",
        lambda value: (
            "does not hold here"
            if value("non_targeted.cost.ends_highest_share") < MOST
            else _holds(True)
            if min(value(f"{name}.cost.ends_highest_share") for name in ("noise", "targeted")) >= MOST
            else "holds only in part"
        ),
        ["non_targeted/cost", "noise/cost", "targeted/cost"],
    ),
    Claim(
        "A small change, which a person hardly sees, puts a digit into any other class.",
        "{targeted.num_success} of {targeted.num_images} attacks succeed, {targeted.likeness.num_digits} of the images "
        "are as near to a training image as test digits are, and the largest change of a pixel is "
        "{targeted.mean_linf:.2f} on average; whether a person sees it is for the eye to judge",
        lambda value: (
            "holds only in part"
            if min(value("targeted.num_success"), value("targeted.likeness.num_digits"))
            > MOST * value("targeted.num_images")
            else "does not hold here"
        ),
        ["targeted/images"],
    ),
)


def conclusion(record: Found) -> list[tuple[str, list[Evidence]]]:
    """The lab report's claims that this record speaks about, each with the evidence of every network.

    None where the network or its training is another than the lab report's.
    """
    found = []
    for claim in CLAIMS:
        evidence = [_evidence(claim, *side) for side in _sides(record)]
        if said := [one for one in evidence if one is not None]:
            is_about_both = "{comparison." in claim.evidence
            found.append((claim.says, [said[0]._replace(whose="")] if is_about_both else said))
    return found


def _sides(record: Found) -> list[tuple[str, Found, str]]:
    """Each network with the lab report's training: the key of its name, its findings, and where they lie."""
    sides = [("", record, "")]
    if "other" in record:
        sides = [("names.0", record, ""), ("names.1", record["other"], "other.")]
    return [
        side
        for side in sides
        if known("{predictions.lab_report.accuracy}", side[1])
        and not lookup(side[1], "predictions.differs_from_lab_report")
    ]


def _evidence(claim: Claim, whose: str, found: Found, prefix: str) -> Evidence | None:
    """None where the findings do not speak about the claim."""
    try:
        if not known(claim.evidence, found):
            return None
        verdict = claim.verdict(lambda key: lookup(found, key))
    except (KeyError, TypeError):  # a section that failed, or measured something else
        return None
    return Evidence(whose, claim.evidence, found, prefix, verdict, claim.figures)
