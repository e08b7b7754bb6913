"""A picture of the user's own: what the network says, and what it was shown."""

from cnn_mnist.figures import picture as draw
from cnn_mnist.report.section import Answer, Section, needs
from cnn_mnist.report.subject import Subject


@needs(data=False, picture=True, only_picture=True)
def picture(subject: Subject) -> Section:
    """What does the network say, and what did it see of the picture?"""
    own = subject.picture
    assert own is not None
    probability = subject.picture_probability
    first, second = probability.topk(2).indices.tolist()
    findings = {
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
    figures = {"picture/reading": draw.reading(own.given, own.box, own.image, probability)}
    says = (
        "It is classified as {name}, with a probability of {confidence:.1%}; the next is {runner_up}, with "
        "{runner_up_confidence:.1%}."
    )
    doubtful = [f"It may have been read wrongly: {{doubts.{k}}}." for k in range(len(own.doubts))]
    steps = f"Step by step: {'; '.join(f'{{notes.{k}}}' for k in range(len(own.notes)))}."
    answers = [
        Answer("What is it?", ["picture/reading"], [says, *doubtful]),
        Answer("How was the picture read?", [], [steps]),
    ]
    return Section(findings, answers, {"picture": {"image": own.image, "probability": probability}}, figures)
