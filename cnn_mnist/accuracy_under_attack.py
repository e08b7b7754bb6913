"""How much of its accuracy the network keeps under the field's standard attacks, over the test set."""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cnn_mnist import attacks, console
from cnn_mnist.adversary import NUM_SHOWN, attackable, not_counted, targets
from cnn_mnist.ascent import l2
from cnn_mnist.attacks.result import AttackResult, predict
from cnn_mnist.attacks.robustness import Masking, RobustAccuracy, gradient_masking, robust_accuracy
from cnn_mnist.distributed import over_images
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.network import CNN
from cnn_mnist.part import Answer, Part, Table, of_attack
from cnn_mnist.subject import Subject

EPSILONS = {"linf": (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4), "l2": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)}
NUM_PROBED = 200  # images on which signs of a hidden gradient are looked for

Attack = Callable[[Tensor, Tensor, float], AttackResult]  # images, classes, epsilon


def fgsm(
    subject: Subject, *, epsilon: float, target: int | None, num_images: int, epsilons: list[float] | None
) -> Part:
    """How far does a single step go?"""

    def attack(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        work = functools.partial(_fgsm, epsilon=budget, targeted=target is not None)
        return over_images(work, AttackResult.joined, subject.network, images, classes)

    how = {"restarts": 1, "steps": 1, "step_size": None}  # its one step is epsilon
    return _over_test_set("fgsm", subject, attack, epsilon, target, num_images, epsilons, "linf", how)


def pgd(
    subject: Subject,
    *,
    epsilon: float,
    step_size: float | None,
    steps: int,
    restarts: int,
    norm: str,
    early_stop: bool,
    target: int | None,
    num_images: int,
    epsilons: list[float] | None,
    seed: int,
) -> Part:
    """How far do many steps go, from several starts?"""

    def attack(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        work = functools.partial(
            _pgd,
            seed=seed,
            epsilon=budget,
            step_size=_step_size(step_size, budget, steps),
            steps=steps,
            restarts=restarts,
            norm=norm,
            targeted=target is not None,
            early_stop=early_stop,
        )
        return over_images(work, AttackResult.joined, subject.network, images, classes)

    own_step = _step_size(step_size, epsilon, steps)
    how = {"restarts": restarts, "steps": steps, "step_size": step_size}
    part = _over_test_set("pgd", subject, attack, epsilon, target, num_images, epsilons, norm, how)
    if own_step * steps < epsilon:
        part.answers[0].says.append(
            "{steps} steps of {step_size_used:g} do not reach the rim of a ball of {epsilon:g}: raise attack.step_size "
            "or attack.steps, or this result means little."
        )
    return part._replace(findings=part.findings | {"step_size_used": own_step})


def deepfool(subject: Subject, *, steps: int, overshoot: float, num_images: int, epsilons: list[float] | None) -> Part:
    """How near is the nearest wrong class?"""
    found: list[AttackResult] = []  # the attack has no budget: the smallest change answers for every one

    def attack(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        if not found:
            work = functools.partial(_deepfool, steps=steps, overshoot=overshoot)
            found.append(over_images(work, AttackResult.joined, subject.network, images, classes))
        return found[0]._replace(success=found[0].success & (l2(found[0].perturbation)[:, 0, 0, 0] <= budget))

    how = {"restarts": 1, "steps": steps, "step_size": None}  # as far as the boundary
    return _over_test_set("deepfool", subject, attack, float("inf"), None, num_images, epsilons, "l2", how)


def _fgsm(network: CNN, first: int, images: Tensor, classes: Tensor, **options: Any) -> AttackResult:
    return attacks.fgsm(network, images, classes, **options).cpu()


def _pgd(network: CNN, first: int, images: Tensor, classes: Tensor, *, seed: int, **options: Any) -> AttackResult:
    generator = torch.Generator().manual_seed(seed)
    what = f"pgd, epsilon {options['epsilon']:g}"
    return attacks.pgd(
        network,
        images,
        classes,
        generator=generator,
        first=first,
        progress=lambda taken: console.track(taken, what),
        **options,
    ).cpu()


def _deepfool(network: CNN, first: int, images: Tensor, classes: Tensor, **options: Any) -> AttackResult:
    return attacks.deepfool(network, images, classes, **options).cpu()


def _step_size(step_size: float | None, epsilon: float, steps: int) -> float:
    """The one that is given, or one with which the steps together go two and a half times the radius."""
    return 2.5 * epsilon / steps if step_size is None else step_size


def _over_test_set(
    name: str,
    subject: Subject,
    attack: Attack,
    epsilon: float,
    target: int | None,
    num_images: int,
    epsilons: list[float] | None,
    norm: str,
    how: dict[str, Any],
) -> Part:
    """Attack so many test images with one budget, then, where any wrong class will do, with a range of them."""
    assert subject.test is not None
    index = subject.test.spread(num_images)
    images, labels = subject.test[index]
    left_out: dict[str, int] = {}
    if target is not None:
        aim = targets(target).expand(len(images))
        kept, _, left_out = attackable(subject, images, labels, torch.arange(len(images)), aim)
        images, labels = images[kept], labels[kept]
    classes = labels if target is None else aim[: len(labels)]
    clock = time.perf_counter()
    result = attack(images, classes, epsilon)
    seconds = time.perf_counter() - clock

    first = torch.stack([(labels == c).nonzero()[0, 0] for c in labels.unique()])[:NUM_SHOWN]
    figures = {
        f"{name}/images": draw.sums(
            images[first], labels[first], result.rows(first), f"A digit, what {name} adds, and their sum"
        )
    }
    budget = (
        "no pixel changed by more than {epsilon:g}" if norm == "linf" else "changes of an L2 norm up to {epsilon:g}"
    )
    within = f" ({budget})" if epsilon < float("inf") else ""
    findings: dict[str, Any] = {**left_out}
    if target is None:
        findings |= _before_and_after(
            predict(subject.network, images.to(subject.device)).argmax(1).cpu(), labels, result
        )
        says = (
            "Without the attack, {accuracy_before:.1%} of {num_images} test images are classified correctly; under it"
            f"{within}, {{accuracy_after:.1%}} are. It makes {{num_changed}} correct answers wrong."
        )
    else:
        says = f"Under the attack{within}, {{success_rate:.1%}} of {{num_images}} test images are seen as {{target}}."
    question = f"How many digits does {name.upper().replace('DEEPFOOL', 'DeepFool')} change?"
    part = Part(findings, [Answer(question, list(figures), [*not_counted(left_out), says])], {}, figures)
    if target is None:
        known = {epsilon: result}  # not to be computed again for the curve
        budgets = sorted(EPSILONS[norm] if epsilons is None else epsilons)
        if budgets:
            found = robust_accuracy(
                lambda budget: known.get(budget) or attack(images, classes, budget),
                labels,
                budgets,
            )
            _add_curve(part, name, found, norm, subject.dataset, how | {"num_images": len(labels)})
        if norm == "linf" and epsilon > 0:
            _add_signs(part, subject, epsilon, how)
    return of_attack(name, subject, images, labels, result, seconds, part)


def _before_and_after(clean: Tensor, labels: Tensor, result: AttackResult) -> dict[str, Any]:
    """Accuracies without and with an attack, and how many of the right answers it changed; classes int64 (N,)."""
    was_right, is_right = clean == labels, ~result.success
    return {
        "accuracy_before": was_right.double().mean().item(),
        "accuracy_after": is_right.double().mean().item(),
        "num_changed": int((was_right & ~is_right).sum()),
    }


def _add_curve(part: Part, name: str, found: RobustAccuracy, norm: str, dataset: str, how: dict[str, Any]) -> None:
    """Add the robust accuracy against the budget."""
    part.figures[f"{name}/robustness"] = draw.robustness(
        found, attack=name, norm=norm, num_images=how["num_images"], dataset=dataset
    )
    part.findings["robust_accuracy"] = {
        "epsilon": found.epsilon.tolist(),
        "robust_acc": found.accuracy.tolist(),
        "robust_acc_by_class": found.by_class.tolist(),
        "norm": norm,
        **how,
    }
    last = len(found.epsilon) - 1
    part.answers.append(
        Answer(
            "How much of its accuracy does the network keep, against how strong an attack?",
            [f"{name}/robustness"],
            [
                "With the attack the accuracy on {robust_accuracy.num_images} test images goes from "
                f"{{robust_accuracy.robust_acc.0:.1%}} at an epsilon of {{robust_accuracy.epsilon.0:g}} to "
                f"{{robust_accuracy.robust_acc.{last}:.1%}} at {{robust_accuracy.epsilon.{last}:g}}."
            ],
            [
                Table(
                    "Accuracy under attack",
                    ["epsilon", "right"],
                    [
                        [f"{{robust_accuracy.epsilon.{k}:g}}", f"{{robust_accuracy.robust_acc.{k}:.1%}}"]
                        for k in range(len(found.epsilon))
                    ],
                )
            ],
        )
    )


def _add_signs(part: Part, subject: Subject, epsilon: float, how: dict[str, Any]) -> None:
    """Add what speaks for a hidden gradient."""
    steps = max(40, how["steps"])  # as many for a single step's sake
    signs = _signs(subject, epsilon, _step_size(how["step_size"], epsilon, steps), steps)
    part.findings["gradient_masking"] = {
        **signs._asdict(),
        "signs": signs.warnings,
        "num_images": NUM_PROBED,
    }
    says = [f"A sign of gradient masking: {words.replace('{', '{gradient_masking.')}." for words in signs.signs]
    if not says:
        says = [
            "No gradient masking detected on {gradient_masking.num_images} images: one step leaves "
            "{gradient_masking.one_step:.1%} right, {gradient_masking.steps} steps {gradient_masking.many_steps:.1%}, "
            "random signs {gradient_masking.random:.1%}, and a budget of the whole range {gradient_masking.huge:.1%}."
        ]
    part.answers.append(Answer("Is the gradient to be trusted, or hidden?", [], says))


@functools.lru_cache(maxsize=4)
def _signs(subject: Subject, epsilon: float, step_size: float, steps: int) -> Masking:
    """Look once, whichever attack asks."""
    assert subject.test is not None
    images, labels = subject.test[subject.test.spread(NUM_PROBED)]
    return gradient_masking(
        subject.network,
        images.to(subject.device),
        labels.to(subject.device),
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        generator=torch.Generator().manual_seed(0),
    )
