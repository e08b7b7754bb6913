"""What a command asks for: everything, or what is named; and what cannot be computed."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from cnn_mnist.report import plan
from tests.cli.test_schema import composed

EVERY = ["training", "predictions", "filters", "activations", "occlusion", "saliency", "class_image"]
ATTACKS = ["non_targeted", "targeted", "noise", "fgsm", "pgd"]


def asked(*overrides: str) -> DictConfig:
    """What analyze.py composes."""
    return composed(*overrides, script="analyze")


def names(*overrides: str) -> list[str]:
    return [task.name for task in plan.tasks(asked(*overrides), list(overrides))]


def test_a_sweep_has_its_own_section_and_no_network() -> None:
    assert names("sweep=multirun/mine") == ["seeds"]
    assert names("committee=multirun/mine") == ["committee"]
    for other in ("against=outputs/other", "committee=multirun/mine", "attack=pgd", "export=torch"):
        with pytest.raises(ValueError, match=f"sweep= and {other.partition('=')[0]}= cannot be combined: leave one"):
            names("sweep=multirun/mine", other)
    assert "seeds" not in names()


def test_everything_or_what_is_named() -> None:
    assert names() == EVERY + ATTACKS
    assert names("occlusion.window=4") == EVERY + ATTACKS
    assert names("analysis=all") == EVERY
    assert names("attack=all") == ATTACKS
    assert names("analysis=filters") == ["filters"]
    assert names("analysis=filters", "attack=all") == ["filters", *ATTACKS]
    (task,) = plan.tasks(asked("attack=deepfool", "attack.steps=3"), ["attack=deepfool"])
    assert (task.kind, task.name, task.options["steps"], task.is_alone) == ("attacks", "deepfool", 3, True)
    assert names("~training") == EVERY[1:] + ATTACKS
    assert names("~attack") == EVERY


def test_one_picture_is_enough_for_some() -> None:
    assert names("image=x.png") == ["picture", "activations", "occlusion", "saliency", "targeted", "noise"]
    with pytest.raises(ValueError, match="analysis=picture is about a picture of your own: set image="):
        names("analysis=picture")
    with pytest.raises(ValueError, match="analysis=filters cannot use a single picture: leave out image="):
        names("analysis=filters", "image=x.png")
    with pytest.raises(ValueError, match="attack=pgd cannot use a single picture"):
        names("attack=pgd", "image=x.png")


def test_several_pictures_are_classified_and_no_more(tmp_path: Path) -> None:
    assert names("image=[x.png,y.png]") == names(f"image={tmp_path}") == ["pictures"]
    with pytest.raises(ValueError, match="analysis=picture is about a picture of your own: set image= to its file"):
        names("analysis=picture", f"image={tmp_path}")
    with pytest.raises(ValueError, match="analysis=pictures is about several pictures of your own: set image= to a f"):
        names("analysis=pictures", "image=x.png")
    with pytest.raises(ValueError, match="nothing is left to do, because attack=non_targeted cannot use several"):
        names("attack=all", f"image={tmp_path}")
    with pytest.raises(ValueError, match="analysis=occlusion cannot use several pictures: leave out image="):
        names("analysis=occlusion", "image=[x.png]")


def test_without_captum_the_rest_is_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    assert names("analysis=all") == [name for name in EVERY if name != "saliency"]
    assert "left out: analysis=saliency requires captum" in capsys.readouterr().out
    assert "saliency" not in names("image=x.png")
    assert "left out: analysis=saliency requires captum" in capsys.readouterr().out
    with pytest.raises(ValueError, match="analysis=saliency requires captum: pip install captum"):
        names("analysis=saliency")


def test_two_attacks_by_one_function_are_two() -> None:
    fgsm = "_target_:cnn_mnist.report.sections.attacks.fgsm_pgd.fgsm,_partial_:true"
    options = "epsilon:0.1,target:null,num_images:9,epsilons:null"
    assert names("attack=all", "+attack.mine={" + f"{fgsm},{options}" + "}") == [*ATTACKS, "mine"]


def test_a_comparison_needs_another_network() -> None:
    assert names("against=other") == ["comparison", *EVERY, *ATTACKS]
    assert names("against=other", "analysis=comparison") == ["comparison"]
    with pytest.raises(ValueError, match="analysis=comparison needs two networks: set against="):
        names("analysis=comparison")


def test_export_is_alone_unless_more_is_named() -> None:
    (task,) = plan.tasks(asked("export=torch"), ["export=torch"])
    assert (task.kind, task.name, task.is_done_once) == ("export", "torch", True)
    assert names("export=torch", "analysis=filters") == ["filters", "torch"]


def test_every_section_knows_where_its_options_are() -> None:
    assert [(task.name, task.key) for task in plan.tasks(asked("attack=deepfool"), ["attack=deepfool"])] == [
        ("deepfool", "attack")
    ]
    keys = {task.name: task.key for task in plan.tasks(asked(), [])}
    assert (keys["pgd"], keys["occlusion"]) == ("attack.pgd", "occlusion")


def test_options_of_what_is_not_asked_for_are_refused() -> None:
    for words in (
        ("attack=fgsm", "occlusion.window=5"),
        ("analysis=filters", "attack.pgd.epsilon=0.5"),
        ("analysis=filters", "metric=test/loss"),
    ):
        with pytest.raises(ValueError, match=f"{words[1].partition('=')[0]} has no effect on what is asked for"):
            names(*words)
    assert names("analysis=occlusion", "occlusion.window=5") == ["occlusion"]
    assert names("attack=pgd", "attack.epsilon=0.2") == ["pgd"]
    assert names("export=torch", "export.num_images=10") == ["torch"]


def test_what_writes_one_network_is_not_given_two() -> None:
    with pytest.raises(ValueError, match="export=torch writes one network: leave against= out"):
        names("export=torch", "against=outputs/other")
    assert names("export=play", "against=outputs/other") == ["play"]
