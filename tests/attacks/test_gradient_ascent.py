"""Gradient ascent on objectives with known maxima, and the projections."""

import pytest
import torch
from torch import Tensor

from cnn_mnist.attacks.gradient_ascent import ObjectiveValue, ascend, fixed_step, inside, l2, sign, standardised, unit
from cnn_mnist.attacks.projection import l2_ball, linf_ball, to_grey_values

START = torch.full((3, 1, 2, 2), 0.5)


def to_summit(summit: Tensor, *, done_within: float | None = None) -> object:
    """Minus half the squared distance to a summit, (N, 1, 2, 2)."""

    def judge(x: Tensor, index: Tensor) -> ObjectiveValue:
        distance = l2(x - summit[index])[:, 0, 0, 0]
        return ObjectiveValue(-distance.square() / 2, None if done_within is None else distance <= done_within)

    return judge


def test_each_image_climbs_its_own_summit_and_stops_there() -> None:
    summit = torch.tensor([0.5, 0.7, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    seen: list[list[int]] = []
    judge = to_summit(summit, done_within=0.11)

    def watched(x: Tensor, index: Tensor) -> ObjectiveValue:
        seen.append(index.tolist())
        return judge(x, index)

    found = ascend(watched, START, steps=20, move=fixed_step(0.1, unit, to_grey_values))
    assert found.steps.tolist() == [0, 3, 9]  # 0.4 and 1.0 away, steps of 0.1, done from 0.11 on
    assert seen[0] == [0, 1, 2]
    assert seen[1:4] == [[1, 2]] * 3  # the first image costs nothing once it is done
    assert seen[4:] == [[2]] * 6
    assert l2(found.images - summit).amax() <= 0.11
    for k, steps in enumerate(found.steps.tolist()):
        assert not found.trace[: steps + 1, k].isnan().any()
        assert found.trace[steps + 1 :, k].isnan().all()
    assert found.trace[0].tolist() == pytest.approx([0, -0.08, -0.5])


def test_the_best_image_on_the_way_is_kept() -> None:
    def judge(x: Tensor, index: Tensor) -> ObjectiveValue:
        height = x.mean((1, 2, 3))
        return ObjectiveValue(height, score=-(height - 0.62).abs(), shown=2 * height)

    found = ascend(judge, START, steps=4, move=fixed_step(0.1, sign, to_grey_values))
    torch.testing.assert_close(found.images, torch.full_like(START, 0.6))
    assert found.trace[:, 0].tolist() == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8])


def test_without_looking_back_the_last_step_is_not_judged() -> None:
    judge = to_summit(torch.ones(3, 1, 2, 2))
    found = ascend(judge, START, steps=2, move=fixed_step(0.1, sign, to_grey_values), evaluate_last=False)
    assert found.trace.shape == (2, 3)
    torch.testing.assert_close(found.images, torch.full_like(START, 0.7))


def test_a_gradient_of_zero_is_noticed_and_none_at_all_refused() -> None:
    def flat(x: Tensor, index: Tensor) -> ObjectiveValue:
        return ObjectiveValue((x * 0).sum((1, 2, 3)) + x.mean((1, 2, 3)) * (index == 1))

    found = ascend(flat, START, steps=1, move=fixed_step(0.1, sign, to_grey_values))
    assert found.zero_gradient.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="no gradient with respect to the images"):
        ascend(
            lambda x, index: ObjectiveValue(x.detach().mean((1, 2, 3))),
            START,
            steps=1,
            move=fixed_step(0.1, sign, to_grey_values),
        )


def test_directions() -> None:
    gradient = torch.tensor([[3.0, -4.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    images = torch.tensor([[0.5, 0.0], [1.0, 0.2]]).view(1, 1, 2, 2)
    assert sign(gradient, images).flatten().tolist() == [1, -1, 0, 0]
    assert unit(gradient, images).flatten().tolist() == pytest.approx([0.6, -0.8, 0, 0])
    assert inside(gradient, images).flatten().tolist() == [3, 0, 0, 0]  # the second is at 0 and would go lower
    deviation = gradient.flatten().std().item()
    assert standardised(gradient, images).flatten().tolist() == pytest.approx([3 / deviation, -4 / deviation, 0, 0])
    assert unit(torch.zeros_like(gradient), images).abs().sum() == 0


@pytest.mark.parametrize("side", [28, 10, 3])
@pytest.mark.parametrize(("ball", "epsilon"), [(linf_ball, 0.2), (l2_ball, 1.5)])
def test_balls_hold_what_starts_and_moves_in_them(ball: object, epsilon: float, side: int) -> None:
    images = torch.rand(6, 1, side, side, generator=torch.Generator().manual_seed(1))
    room = ball(images, epsilon)
    start = room.random_start(torch.Generator().manual_seed(0))
    fewer = ball(images[:4], epsilon).random_start(torch.Generator().manual_seed(0))
    assert torch.equal(start[:4], fewer)
    index = torch.tensor([1, 4])
    moved = room.project(
        images[index] + 3 * torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(2)), index
    )
    for x, original in ((start, images), (moved, images[index])):
        far = x - original
        size = far.abs().amax((1, 2, 3)) if ball is linf_ball else l2(far)[:, 0, 0, 0]
        assert (size <= epsilon + 1e-5).all()
        assert (size > 0).all()
        assert x.min() >= 0
        assert x.max() <= 1
