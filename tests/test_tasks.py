"""What a command asks for: everything, or what is named; and what cannot be had."""

import pytest
from omegaconf import DictConfig, OmegaConf

from cnn_mnist import tasks

EVERY = ["training", "predictions", "filters", "activations", "occlusion", "saliency", "class_image"]
ATTACKS = ["non_targeted", "targeted", "noise"]


def asked(**options: object) -> DictConfig:
    default = {"ckpt_path": None, "against": None, "sweep": None, "analysis": "all", "image": None, "images": 3}
    groups = {"data": {"dataset": "digits", "root": "data"}, "trainer": {"accelerator": "cpu"}}
    parts = {name: {} for name in ("comparison", *EVERY)}
    attacks = {"attack": {name: {"_target_": f"cnn_mnist.adversary.{name}"} for name in ATTACKS}}
    return OmegaConf.create(default | groups | parts | attacks | options)


def test_a_sweep_has_its_own_part_and_no_network() -> None:
    cfg = asked(sweep="multirun/mine", seeds={})
    assert names(cfg) == ["seeds"]
    with pytest.raises(ValueError, match="leave one of them out"):
        names(asked(sweep="multirun/mine", seeds={}, against="outputs/other"))
    with pytest.raises(ValueError, match="set sweep= to its folder"):
        names(asked(analysis="seeds", seeds={}), "analysis=seeds")
    assert "seeds" not in names(asked(seeds={}))


def names(cfg: DictConfig, *overrides: str) -> list[str]:
    return [task.name for task in tasks.tasks(cfg, list(overrides))]


def test_everything_or_what_is_named() -> None:
    assert names(asked()) == EVERY + ATTACKS
    assert names(asked(), "occlusion.window=4") == EVERY + ATTACKS
    assert names(asked(), "analysis=all") == EVERY
    assert names(asked(), "attack=all") == ATTACKS
    assert names(asked(analysis="filters"), "analysis=filters") == ["filters"]
    assert names(asked(analysis="filters"), "analysis=filters", "attack=all") == ["filters", *ATTACKS]
    (task,) = tasks.tasks(asked(attack={"_target_": "a.b.pgd", "steps": 3}), ["attack=pgd"])
    assert (task.kind, task.name, task.options, task.is_alone) == ("attacks", "pgd", {"steps": 3}, True)
    left_out = asked()
    del left_out["training"]
    assert names(left_out) == EVERY[1:] + ATTACKS
    with pytest.raises(ValueError, match="~training leaves it out"):
        names(OmegaConf.merge(left_out, {"analysis": "training"}), "analysis=training")


def test_one_picture_is_enough_for_some() -> None:
    assert names(asked(image="x.png")) == ["activations", "occlusion", "saliency", "targeted", "noise"]
    with pytest.raises(ValueError, match="analysis=filters cannot do with one picture: .* choose activations or occ"):
        names(asked(analysis="filters", image="x.png"), "analysis=filters")
    with pytest.raises(ValueError, match="attack=pgd cannot do with one picture"):
        names(asked(attack={"_target_": "a.b.pgd"}, image="x.png"), "attack=pgd")


def test_without_captum_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tasks.importlib.util, "find_spec", lambda name: None)
    assert names(asked(), "analysis=all") == [part for part in EVERY if part != "saliency"]
    assert "saliency is left out: it needs captum" in capsys.readouterr().out
    with pytest.raises(ValueError, match="analysis=saliency cannot be had: it needs captum"):
        names(asked(analysis="saliency"), "analysis=saliency")


def test_a_comparison_needs_another_network() -> None:
    assert names(asked(against="other")) == ["comparison", *EVERY, *ATTACKS]
    assert names(asked(against="other", analysis="comparison"), "analysis=comparison") == ["comparison"]
    with pytest.raises(ValueError, match="analysis=comparison needs two networks: set against="):
        names(asked(analysis="comparison"), "analysis=comparison")


def test_export_is_alone_unless_more_is_named() -> None:
    export = {"_target_": "a.b.torch_program"}
    (task,) = tasks.tasks(asked(export=export), ["export=torch"])
    assert (task.kind, task.name, task.is_of_one) == ("export", "torch", True)
    assert names(asked(export=export, analysis="filters"), "export=torch", "analysis=filters") == ["filters", "torch"]
