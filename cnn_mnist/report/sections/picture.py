"""Pictures of the user's own: one explained in full, or several classified."""

from pathlib import Path
from typing import Any

import torch

from cnn_mnist import attacks
from cnn_mnist.analysis.nearest import neighbours
from cnn_mnist.attacks.gradient_ascent import NO_GRADIENT
from cnn_mnist.attacks.result import predict
from cnn_mnist.figures import picture as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.report.section import Answer, Section, Table, needs
from cnn_mnist.report.subject import Subject
from cnn_mnist.runs.files import as_csv

NUM_NEAREST = 8
SHEET = 48  # pictures on a contact sheet: twelve rows of four
COLUMNS = ("file", "predicted", "probability", "runner_up", "runner_up_probability", "remarks")


@needs(data=False, about="picture")
def picture(subject: Subject) -> Section:
    """What does the network say, what did it see of the picture, and what would change its answer?"""
    own = subject.picture
    assert own is not None
    probability = subject.picture_probability
    first, second = probability.topk(2).indices.tolist()
    findings: dict[str, Any] = {
        "predicted": first,
        "name": subject.names[first],
        "confidence": probability[first].item(),
        "runner_up": subject.names[second],
        "runner_up_confidence": probability[second].item(),
        "probability": probability.tolist(),
        "box": list(own.box),
        "notes": own.notes,
        "doubts": own.doubts,
    }
    figures: dict[str, Picture] = {
        "picture/reading": draw.reading(own.given, own.box, own.image),
        "picture/probability": draw.probabilities(probability),
    }
    tensors = {"image": own.image, "probability": probability}
    says = (
        "It is classified as {name}, with a probability of {confidence:.1%}; the next is {runner_up}, with "
        "{runner_up_confidence:.1%}."
    )
    doubtful = [f"It may have been read wrongly: {{doubts.{k}}}." for k in range(len(own.doubts))]
    steps = f"Step by step: {'; '.join(f'{{notes.{k}}}' for k in range(len(own.notes)))}."

    image, target = own.image.to(subject.device), torch.tensor([second], device=subject.device)
    changes = "Targeted DeepFool found no change for it to be classified as {runner_up}."
    try:
        result = attacks.deepfool(subject.network, image, target, targeted=True)
    except ValueError as error:
        if str(error) != NO_GRADIENT:
            raise
        changes = "This is left out: the network has no gradient with respect to the image."
    else:
        change = result.perturbation.cpu()
        size = {"l2": change.norm().item(), "linf": change.abs().max().item()}
        findings["change"] = {"success": bool(result.success), **size}
        if result.success:
            figures["picture/change"] = draw.change(own.image, change)
            tensors["changed"] = result.images.cpu()
            changes = (
                "A change with an L2 norm of {change.l2:.2f}, {change.linf:.2f} in the pixel that changes most, is "
                "enough for it to be classified as {runner_up} (targeted DeepFool)."
            )

    if subject.train is None:
        alike = "The nearest training images are left out: the network's training set is not on this machine."
    else:
        train = subject.train[:]
        distance, place = (one[0].cpu() for one in neighbours(image, train.images.to(subject.device), NUM_NEAREST))
        labels = train.labels[place]
        findings["nearest"] = {
            "indices": place.tolist(),
            "labels": labels.tolist(),
            "distance": distance.tolist(),
            "num_images": len(place),
            "num_same": int((labels == first).sum()),
        }
        figures["picture/nearest"] = draw.nearest(train.images[place], labels, distance)
        alike = "{nearest.num_same} of the {nearest.num_images} nearest training images are of class {name}."
    answers = [
        Answer("What is it?", ["picture/reading", "picture/probability"], [says, *doubtful]),
        Answer("How was the picture read?", [], [steps]),
        Answer("Which training images are most like it?", ["picture/nearest"] * ("nearest" in findings), [alike]),
        Answer(
            "What change would make the network predict the runner-up?",
            ["picture/change"] * ("picture/change" in figures),
            [changes],
        ),
    ]
    return Section(findings, answers, {"picture": tensors}, figures)


@needs(data=False, about="pictures", tables=True)
def pictures(subject: Subject) -> Section:
    """What does the network predict for each picture?"""
    read = [(one.name, one.picture) for one in subject.pictures if one.picture is not None]
    images = torch.cat([picture.image for _, picture in read])
    probability = predict(subject.network, images.to(subject.device)).softmax(1).cpu()
    answers = iter(probability)
    found = []
    for one in subject.pictures:
        entry = dict.fromkeys(COLUMNS)
        entry |= {"file": one.name, "remarks": f"not read: {one.reason}"}
        if one.picture is not None:
            values, classes = next(answers).topk(2)
            names = [subject.names[label] for label in classes.tolist()]
            entry |= dict(zip(COLUMNS[1:5], (names[0], values[0].item(), names[1], values[1].item()), strict=True))
            entry["remarks"] = "; ".join(one.picture.doubts)
        found.append(entry)
    findings = {
        "num_pictures": len(found),
        "num_read": len(read),
        "num_doubtful": sum(bool(picture.doubts) for _, picture in read),
        "pictures": found,
    }
    entries = [draw.Entry(Path(name).name, picture.given, bool(picture.doubts)) for name, picture in read]
    sheets = (slice(start, start + SHEET) for start in range(0, len(read), SHEET))
    figures: dict[str, Picture] = {
        f"pictures/sheet_{k}": draw.contact_sheet(entries[sheet], images[sheet], probability[sheet])
        for k, sheet in enumerate(sheets, 1)
    }
    says = ["{num_read} of {num_pictures} pictures are read and classified."]
    if findings["num_doubtful"]:
        says.append("{num_doubtful} of them may have been read wrongly: see the remarks.")
    rows = []
    for k, entry in enumerate(found):
        cells = [f"{{pictures.{k}.{key}{':.1%' * ('probability' in key)}}}" for key in COLUMNS]
        rows.append([cells[0], "", "", "", "", cells[-1]] if entry["predicted"] is None else cells)
    headings = ["file", "predicted", "probability", "then", "probability", "remarks"]
    table = Table("Predictions", headings, rows)
    return Section(
        findings,
        [Answer("What are they?", list(figures), says, [table])],
        {"pictures": {"images": images, "probability": probability}},
        figures,
        {"predictions.csv": as_csv(found).encode()},
    )
