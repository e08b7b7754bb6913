"""DeepFool: the smallest change that crosses a decision boundary."""

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import NO_GRADIENT, ObjectiveValue, ascend, fixed_step, inside, l2
from cnn_mnist.attacks.projection import to_grey_values
from cnn_mnist.attacks.result import AttackResult, check_number, conclude, is_over
from cnn_mnist.checks import examined


def deepfool(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int,
    *,
    targeted: bool = False,
    steps: int = 50,
    overshoot: float = 0.02,
) -> AttackResult:
    """DeepFool: repeated steps to the nearest decision boundary of the linearised model, until the class changes.

    Increases minus half the squared distance to that boundary, of which the gradient is the step to the boundary.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1].
        labels: The true classes, int64 (N,); with `targeted`, the classes to reach.
        targeted: Step to the boundary with the class to reach, until the model predicts it.
        steps: Maximum number of steps.
        overshoot: By how much each step is longer than the distance to the boundary.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Moosavi-Dezfooli, Fawzi and Frossard 2016.
    """
    check_number("steps", steps, 1)
    check_number("overshoot", overshoot, 0)
    with examined(model, images, labels) as (logits_of, images, labels):

        def half_squared_distance(x: Tensor, index: Tensor) -> ObjectiveValue:
            logits = logits_of(x)
            if not logits.requires_grad:
                raise ValueError(NO_GRADIENT)
            label = labels[index][:, None]
            if targeted:  # the boundary between it and the class that is predicted instead
                others = logits.scatter(1, label, -torch.inf).amax(1, keepdim=True)
                margins, label = torch.cat([others, logits.gather(1, label)], 1), torch.zeros_like(label)
                margins = margins - margins[:, :1]
            else:
                margins = logits - logits.gather(1, label)  # (b, C), negative while the class is the label's
            gradients = (torch.autograd.grad(margin.sum(), x, retain_graph=True)[0] for margin in margins.unbind(1))
            slopes = torch.cat([l2(inside(gradient, x))[:, :, 0, 0] for gradient in gradients], 1).clamp_min(1e-12)
            distance = (margins.detach().abs() / slopes).scatter(1, label, torch.inf)
            nearest = distance.argmin(1, keepdim=True)
            ahead = (margins.gather(1, nearest) / slopes.gather(1, nearest))[:, 0]
            return ObjectiveValue(-ahead.square() / 2, is_over(logits, labels[index], targeted))

        climbed = ascend(
            half_squared_distance,
            images,
            steps=steps,
            move=fixed_step(1 + overshoot, inside, to_grey_values),
        )
        return conclude(logits_of, images, climbed, labels, targeted=targeted)
