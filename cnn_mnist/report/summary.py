"""What a report says first and last: its title, its abstract, and which of the lab report's claims hold."""

from collections.abc import Callable
from string import Formatter
from typing import Any, NamedTuple

from cnn_mnist.report.prose import Found, lookup

ATTACKS = ("non_targeted", "targeted", "noise", "fgsm", "pgd", "deepfool", "universal")
SETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "qmnist": "QMNIST",
    "usps": "USPS",
    "emnist_letters": "EMNIST's letters",
    "emnist_balanced": "EMNIST",
    "digits": "scikit-learn's digits",
}
SEED_SPREAD = 0.002  # of the accuracy: two standard deviations over seeds (RESULTS.md)
CLEARLY = 2  # times the drop on the paper: when the drop on the digit is what shows
MARGIN = 0.05  # of the likeness to an edge detector, above which a difference from random filters is seen
MUCH = 1.5  # times the training time that would still be called "severely affected", the lab report's words


def known(sentence: str, record: Found) -> bool:
    """Whether the record has every value that a sentence asks for."""
    try:
        return all(lookup(record, key) is not None for _, key, _, _ in Formatter().parse(sentence) if key)
    except KeyError:
        return False


def title(record: Found) -> str:
    """A sentence over the record that names the report."""
    if any(key in record for key in ("sweep", "seeds", "search")):
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
    if "attack" in record or any(name in record for name in ATTACKS):  # an attack alone is not below its name
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
        "training/accuracy",
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
        "high confidence; {non_targeted.likeness.num_digits} of its images look like a digit",
        "non_targeted/images",
    ),
    Finding(
        "{targeted.num_success} of {targeted.num_images} targeted attacks succeed, with a median mean squared change "
        "of {targeted.median_mse:.4f}; {targeted.likeness.num_digits} of the changed images still look like a digit",
        "targeted/images",
        " ({other.targeted.num_success} of {other.targeted.num_images} succeed on the second network)",
    ),
    Finding(
        "If every pixel may change by {pgd.epsilon:g}, {pgd.accuracy_after:.1%} of {pgd.num_images:,} test images are "
        "still classified correctly under PGD",
        "pgd/robustness",
        ", {other.pgd.accuracy_after:.1%} by the second network",
    ),
)


def abstract(record: Found) -> list[Finding]:
    """The findings that the record knows, each a sentence over it without its full stop."""
    found = []
    for finding in ABSTRACT:
        if known(finding.says, record):
            second = finding.second if "other" in record and known(finding.second, record) else ""
            found.append(Finding(f"{finding.says}{second}", finding.figure))
    return found


class Claim(NamedTuple):
    """A claim of the lab report, the evidence as a sentence over the record, the verdict from it, and a figure."""

    says: str
    evidence: str
    verdict: Callable[[Callable[[str], Any]], str]
    figure: str = ""


class Verdict(NamedTuple):
    """A claim with the evidence of this record and whether it holds."""

    claim: str
    evidence: str
    verdict: str
    figure: str = ""


def _holds(is_true: bool) -> str:
    return "holds" if is_true else "does not hold here"


CLAIMS = (
    Claim(
        "The network classifies {predictions.lab_report.accuracy:.2%} of the test images correctly.",
        "{predictions.accuracy:.2%}",
        lambda value: _holds(value("predictions.accuracy") >= value("predictions.lab_report.accuracy") - SEED_SPREAD),
        "predictions/confusion_matrix",
    ),
    Claim(
        "Batch normalisation improves the accuracy.",
        "{comparison.difference_points:+.2f} percentage points ({comparison.level:.0%} interval "
        "{comparison.low_points:+.2f} to {comparison.high_points:+.2f})",
        lambda value: (
            "holds for these two runs"
            if value("comparison.low") > 0
            else "does not hold here"
            if value("comparison.high") < 0
            else "cannot be decided by one run of each"
        ),
        "comparison/differences",
    ),
    Claim(
        "Batch normalisation severely affects the training time.",
        "{comparison.time_ratio:.2f} times the time",
        lambda value: _holds(value("comparison.time_ratio") >= MUCH),
    ),
    Claim(
        "The convolutional layers have few of the parameters and most of the neurons.",
        "{training.conv.parameter_share:.2%} and {training.conv.neuron_share:.2%}",
        lambda value: _holds(
            value("training.conv.parameter_share") < 0.1 and value("training.conv.neuron_share") > 0.9
        ),
    ),
    Claim(
        "All filters are different from one another.",
        "the two closest of the first layer have a cosine similarity of {filters.conv1_closest_cosine:.2f}, of the "
        "second {filters.conv2_closest_cosine:.2f}",
        lambda value: _holds(
            max(value("filters.conv1_closest_cosine"), value("filters.conv2_closest_cosine"))
            < value("filters.alike_from")
        ),
        "filters/similarity/conv2",
    ),
    Claim(
        "Filters of this size show no recognisable pattern.",
        "likeness to an edge detector {filters.conv1_edge_likeness:.2f} in the first layer, of random filters "
        "{filters.conv1_edge_likeness_by_chance:.2f}",
        lambda value: _holds(
            value("filters.conv1_edge_likeness") < value("filters.conv1_edge_likeness_by_chance") + MARGIN
        ),
        "filters/edges",
    ),
    Claim(
        "Some channels of the first layer reproduce the digit, sharp or blurred.",
        "sharp: {activations.conv1_sharp_copies}; blurred: {activations.conv1_blurred_copies}",
        lambda value: _holds(
            bool(value("activations.conv1_sharp_copies") or value("activations.conv1_blurred_copies"))
        ),
        "activations/conv1/overview",
    ),
    Claim(
        "The second layer is more abstract than the first.",
        "the channels' correlation with the image falls from {activations.conv1_correlation:.2f} to "
        "{activations.conv2_correlation:.2f}",
        lambda value: _holds(value("activations.conv2_correlation") < value("activations.conv1_correlation")),
        "activations/conv2/overview",
    ),
    Claim(
        "Some images resist occlusion completely.",
        "{occlusion.resistant_share:.0%} of {occlusion.num_images:,} images",
        lambda value: _holds(value("occlusion.resistant_share") > 0),
        "occlusion/resistance",
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
        "occlusion/probability",
    ),
    Claim(
        "From noise, every class is reached with high confidence.",
        "{non_targeted.num_success} of {non_targeted.num_images}",
        lambda value: _holds(value("non_targeted.success_rate") == 1),
        "non_targeted/images",
    ),
    Claim(
        "These images do not look like digits.",
        "{non_targeted.likeness.num_digits} of {non_targeted.num_images} are as near to a training image as test "
        "digits are",
        lambda value: _holds(value("non_targeted.likeness.num_digits") == 0),
        "non_targeted/images",
    ),
    Claim(
        "The cost increases with the iterations, whatever the target.",
        "it ends higher than it began for {non_targeted.cost.rises_share:.0%} of the targets",
        lambda value: _holds(value("non_targeted.cost.rises_share") == 1),
        "non_targeted/cost",
    ),
    Claim(
        "A small change, which a person hardly sees, puts a digit into any other class.",
        "{targeted.num_success} of {targeted.num_images} attacks succeed, and {targeted.likeness.num_digits} of the "
        "images still look like a digit",
        lambda value: _holds(
            min(value("targeted.num_success"), value("targeted.likeness.num_digits"))
            > 0.9 * value("targeted.num_images")
        ),
        "targeted/images",
    ),
)


def conclusion(record: Found) -> list[Verdict]:
    """The lab report's claims that this record speaks about; none where the network or its training is another."""
    if not known("{predictions.lab_report.accuracy}", record):
        return []
    differ = lookup(record, "predictions.differs_from_lab_report")
    if differ:
        return []
    found = []
    for claim in CLAIMS:
        try:
            if known(claim.evidence, record):
                verdict = claim.verdict(lambda key: lookup(record, key))
                found.append(Verdict(claim.says, claim.evidence, verdict, claim.figure))
        except (KeyError, TypeError):  # a section that failed, or measured something else
            continue
    return found
