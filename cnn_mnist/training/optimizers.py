"""The optimiser and its schedule, made from nodes: `_target_`, the name of a class or function, and its arguments."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cnn_mnist import nodes
from cnn_mnist.nodes import TARGET

ADAMW = MappingProxyType({TARGET: "torch.optim.AdamW", "fused": True, "weight_decay": 0.0})
ONE_CYCLE = "torch.optim.lr_scheduler.OneCycleLR"
FOR_LIGHTNING = ("interval", "monitor", "frequency")  # keys of a schedule that its class does not get


def make_optimizer(
    node: Mapping[str, Any], parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float
) -> Optimizer:
    """An optimiser of any kind; the weight decay is that of filters and matrices.

    Raises:
        ValueError: It cannot be made, or the node has a learning rate of its own.
    """
    if "lr" in node:
        raise ValueError(f"model.optimizer.lr={node['lr']} has no effect: set model.lr")
    groups: list[dict[str, Any]] = [{"params": list(parameters)}]
    if weight_decay:
        weights = [parameter for parameter in groups[0]["params"] if parameter.ndim > 1]
        others = [parameter for parameter in groups[0]["params"] if parameter.ndim <= 1]
        groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others}]
    optimizer = nodes.make("optimizer", node, groups, lr=lr)
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"{node[TARGET]} must make a torch.optim.Optimizer, got a {type(optimizer).__name__}")
    return optimizer


def make_schedule(
    node: Mapping[str, Any] | str, optimizer: Optimizer, *, lr: float, num_steps: int, num_epochs: int
) -> dict[str, Any]:
    """A schedule of the learning rate, as Lightning takes it.

    Args:
        node: `one_cycle` (Smith and Topin 2018), or a node. Lightning's own keys in it are `interval`, what is counted,
            `step` (the default) or `epoch`, and `monitor`, the metric that ReduceLROnPlateau follows, epoch by epoch.
        optimizer: The optimiser.
        lr: The peak of a one-cycle schedule.
        num_steps: All steps of the training, for an argument of the name `total_steps` or `T_max`.
        num_epochs: Its epochs, for the same arguments where epochs are counted.

    Raises:
        ValueError: It cannot be made.
    """
    node = {TARGET: ONE_CYCLE, "max_lr": lr} if isinstance(node, str) else node
    own = {key: value for key, value in node.items() if key not in FOR_LIGHTNING}
    others = {key: value for key, value in node.items() if key in FOR_LIGHTNING}
    others = {"interval": "epoch" if "monitor" in others else "step", **others}
    length = num_epochs if others["interval"] == "epoch" else num_steps
    return {"scheduler": nodes.make("schedule", own, optimizer, total_steps=length, T_max=length), **others}


def recorded(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Optimiser and schedule among the arguments of a LightningModule; without weight decay AdamW is Adam.

    Returns:
        `optimizer` and `schedule`, the names of the classes; their arguments as `optimizer.NAME` and `schedule.NAME`.
    """
    optimizer = _parts("optimizer", hparams.get("optimizer", ADAMW))
    optimizer.pop("optimizer.fused", None)  # the same arithmetic
    has_decay = hparams.get("weight_decay") or optimizer.get("optimizer.weight_decay", 0.01)
    if optimizer["optimizer"] == "AdamW" and not has_decay:
        optimizer["optimizer"] = "Adam"
        del optimizer["optimizer.weight_decay"]
    return optimizer | _parts("schedule", hparams.get("schedule"))


def _parts(key: str, node: Any) -> dict[str, Any]:
    """A node as `key`, the name of its class, and `key.NAME`, its arguments."""
    if not isinstance(node, Mapping):
        return {key: node}
    own = {f"{key}.{name}": value for name, value in node.items() if name != TARGET}
    return {key: str(node.get(TARGET, "")).rpartition(".")[2]} | own
