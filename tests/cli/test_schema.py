"""The configuration: every file matches the signature it names, and every mistake is reported in one line."""

import inspect
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from cnn_mnist.cli import entry, schema, signals
from cnn_mnist.report import plan
from tests.conftest import ROOT, Command

CONF = ROOT / "conf"
NOT_TRAINS = ("logger", "attack", "export", "analysis")
OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if path.parent.name not in NOT_TRAINS)


def composed(*overrides: str, script: str = "train") -> DictConfig:
    """The configuration as a job of train.py or analyze.py sees it, without Hydra's own part."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(script, list(overrides), return_hydra_config=True)
    if script == "train":
        cfg.recipe, cfg.overrides = cfg.hydra.runtime.choices.experiment, []
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg


def targets(cfg: DictConfig) -> Iterator[DictConfig]:
    """Every node that names what it builds."""
    for key in cfg:
        node = cfg._get_node(key)
        if isinstance(node, DictConfig):
            if "_target_" in node:
                yield node
            yield from targets(node)


def check_targets(cfg: DictConfig) -> None:
    """Hold every node that names what it builds against the signature it names."""
    for node in targets(cfg):
        signature = inspect.signature(get_object(node._target_))
        accepts_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        unknown = {str(key) for key in node} - {"_target_", "_partial_"} - signature.parameters.keys()
        assert accepts_any or not unknown, f"{node._target_} does not take {unknown}"


def check_options(node: DictConfig) -> None:
    """Every argument is an option with a rule, except the subject."""
    parameters = inspect.signature(get_object(node._target_)).parameters.keys() - {"subject"}
    assert parameters == {str(key) for key in node} - {"_target_", "_partial_"}
    declared = schema.annotations_of(node._target_)
    assert parameters == {key for key in declared if schema.rule_of(declared[key])}, "an option without a rule"


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_passes_the_rules_and_fits_its_signature(group: str, option: str) -> None:
    cfg = composed(f"{group}={option}", "data.val_size=5000")
    schema.check(cfg, schema.Train)
    check_targets(cfg)


def test_a_callback_can_be_left_out_or_changed() -> None:
    cfg = composed("~callbacks.occlusion", "callbacks.filters.every_n_epochs=3")
    schema.check(cfg, schema.Train)
    assert "occlusion" not in cfg.callbacks
    with pytest.raises(ValueError, match=r"callbacks.occlusion.window must be a whole number from 1 to 28, got 29"):
        schema.check(composed("callbacks.occlusion.window=29"), schema.Train)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("trainer=gpu", "data=digits"),
        ("images=[1,2]", "class_image.neuron=[3,4]"),
        ("export=onnx",),
        ("export=torch",),
    ],
)
def test_an_analysis_composes_and_fits_its_signatures(overrides: tuple[str, ...]) -> None:
    cfg = composed(*overrides, script="analyze")
    schema.check(cfg, schema.Analyze)
    check_targets(cfg)
    for node in plan.analyses_of(cfg).values():  # every argument can be set on the command line
        check_options(node)


ATTACKS = sorted(path.stem for path in (CONF / "attack").glob("*.yaml"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_composes_and_fits_its_signature(attack: str) -> None:
    cfg = composed(
        f"attack={attack}", "attack.seed=3" if attack in ("pgd", "universal") else "seed=3", script="analyze"
    )
    schema.check(cfg, schema.Analyze)
    check_targets(cfg)
    for node in plan.attacks_of(cfg).values():
        check_options(node)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("attack=targeted", "attack.target=-1"), "attack.target must be null or a class of at least 0, got -1"),
        (("attack=targeted", "attack.beta=-1"), "attack.beta must be a number of at least 0, got -1"),
        (("attack=targeted", "attack.steps=0"), "attack.steps must be a whole number of at least 1, got 0"),
        (("attack=targeted", "attack.steps=-5"), "attack.steps must be a whole number of at least 1, got -5"),
        (("attack=targeted", "attack.steps=2.5"), "got 2.5"),
        (("attack=pgd", "attack.epsilon=-0.1"), "attack.epsilon must be a number from 0 to 1, got -0.1"),
        (("attack=pgd", "attack.epsilon=1.5"), "attack.epsilon must be a number from 0 to 1, got 1.5"),
        (("attack=fgsm", "attack.epsilon=2"), "attack.epsilon must be a number from 0 to 1, got 2"),
        (("attack=pgd", "attack.norm=l1"), "attack.norm must be linf or l2, got l1"),
        (("attack=pgd", "attack.epsilons=[0.1,-1]"), "attack.epsilons must be null or a list such as"),
        (("attack=noise", "attack.epsilon=2"), "attack.epsilon must be null or a number from 0 to 1, got 2"),
        (("export=onnx", "export.num_images=0"), "export.num_images must be a whole number of at least 1, got 0"),
        (("attack=all", "attack.targeted.beta=-1"), "attack.targeted.beta must be a number of at least 0, got -1"),
    ],
)
def test_attacks_out_of_range_are_named(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        schema.check(composed(*overrides, script="analyze"), schema.Analyze)


def test_an_l2_ball_may_be_large() -> None:
    schema.check(composed("attack=pgd", "attack.norm=l2", "attack.epsilon=3", script="analyze"), schema.Analyze)


def test_robust_training_watches_over_itself() -> None:
    cfg = composed("experiment=robust")
    assert cfg.model.epsilon > 0.3
    assert cfg.callbacks.robust_accuracy.epsilon == 0.3
    assert "occlusion" in cfg.callbacks
    assert composed("experiment=robust", "callbacks=none").callbacks == {}


def test_the_defaults_are_the_reports_recipe() -> None:
    cfg = composed()
    assert (cfg.trainer.max_epochs, cfg.data.batch_size, cfg.model.lr, cfg.model.batchnorm) == (6, 100, 1e-3, False)
    assert (cfg.data.dataset, cfg.data.val_size, cfg.model.schedule) == ("mnist", 0, None)


@pytest.mark.parametrize(("batchnorm", "lr"), [("false", 5e-3), ("true", 1e-2)])
def test_one_epoch_picks_the_peak_rate_of_each_network(batchnorm: str, lr: float) -> None:
    cfg = composed("experiment=one_epoch", f"model.batchnorm={batchnorm}")
    assert (cfg.model.lr, cfg.trainer.max_epochs) == (lr, 1)
    assert composed("experiment=one_epoch", "model.lr=0.5").model.lr == 0.5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.lr=-1", "model.lr must be a number above 0, got -1"),
        ("model.lr=0", "model.lr must be a number above 0, got 0"),
        ("model.lr=nan", "got nan"),
        ("model.lr=inf", "got inf"),
        ("model.lr=abc", "got abc"),
        ("model.lr=null", "got null"),
        ("model.batchnorm=1", "model.batchnorm must be true or false, got 1"),
        (
            "model.schedule=cosine",
            "model.schedule must be null, the name of a file in model/schedule, such as one_cycle, or a node",
        ),
        ("network.kernel_size=4", "network.kernel_size must be 3 or 5 or 7 or 9 or 11, got 4"),
        ("data.batch_size=0", "data.batch_size must be a whole number from 1 to 1,000,000, got 0"),
        ("data.batch_size=1.5", "got 1.5"),
        ("data.batch_size=true", "got true"),
        ("data.val_size=-1", "data.val_size must be a whole number of at least 0, got -1"),
        ("data.fallback=mnist", "data.fallback must be digits or null, got mnist"),
        ("trainer.max_epochs=0", "trainer.max_epochs must be a whole number from 1 to 1,000,000, got 0"),
        ("trainer.accelerator=tpu", "got tpu"),
        ("seed=-1", "seed must be a whole number from 0 to 4,294,967,295, got -1"),
        ("seed=4294967296", "got 4294967296"),
        ("+lrr=1", "unknown key lrr"),
    ],
)
def test_values_out_of_range_are_named_with_what_is_allowed(override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("+", r"\+")):
        schema.check(composed(override), schema.Train)


def test_a_last_batch_of_one_image_is_refused_with_batch_norm_alone() -> None:
    entry.check_batches(composed("data.batch_size=7"), 7, 50, is_normalised=False)
    with pytest.raises(ValueError, match="end in a batch of one image"):
        entry.check_batches(composed("data.batch_size=7"), 7, 50, is_normalised=True)
    with pytest.raises(ValueError, match="end in a batch of one image"):
        entry.check_batches(composed("data.batch_size=1"), 1, 50, is_normalised=True)


def test_a_last_batch_that_not_all_processes_share_is_refused() -> None:
    entry.check_batches(composed("trainer=ddp", "data.batch_size=8"), 8, 50, is_normalised=False)
    with pytest.raises(ValueError, match="a batch of 1, too few for 2 processes"):
        entry.check_batches(composed("trainer=ddp", "data.batch_size=7"), 7, 50, is_normalised=False)
    with pytest.raises(ValueError, match="a batch of 2, too few for 2 processes"):
        entry.check_batches(composed("trainer=ddp", "data.batch_size=8"), 8, 50, is_normalised=True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["modle=cnn"], "unknown key modle: did you mean model?"),
        (["lr=1"], "unknown key lr: did you mean model.lr?"),
        (["~callbacks.predictoins"], "unknown key callbacks.predictoins: did you mean callbacks.predictions?"),
        (["trainer=laptop"], "trainer=laptop does not exist: choose from cpu, ddp, default, gpu"),
        (["ckpt_path=nowhere"], "there is no checkpoint at nowhere: set ckpt_path= to a run's folder or a .ckpt file"),
        (["+model.depth=3"], "unknown key model.depth"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str], line: str, train: Command, tmp_path: Path
) -> None:
    done = train("data=digits", *arguments, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert line in done.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_whole_traceback_can_be_had(train: Command, tmp_path: Path) -> None:
    done = train("model.lr=-1", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.status == 1
    assert "Traceback" in done.err


def test_help_shows_five_examples_and_needs_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "train.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.count("  python train.py ") >= 5
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "pytorch_lightning", "matplotlib", "sklearn"}


def test_the_cluster_configuration_composes() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["hydra/launcher=slurm"], return_hydra_config=True)
    launcher = cfg.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert launcher.max_num_timeout == 3


OWN = """
from enum import Enum
from typing import Literal

from cnn_mnist.option_types import Count, Fraction as Share
from own_base import Base


class Class(Enum):
    A = 1


class Mine:
    def __init__(self, steps: "Count", share: Share, kind: Class, how: Literal["a", "b"], other: "a b") -> None: ...


class Heir(Mine):
    pass


class Grandchild(Base):
    pass
"""


def test_annotations_are_those_that_the_users_file_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rules.py").write_text(OWN)
    (tmp_path / "own_base.py").write_text("class Base:\n    def __init__(self, flag: bool) -> None: ...\n")
    (tmp_path / "own_broken.py").write_text("class Mine(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("Mine", "Heir"):
        declared = schema.annotations_of(f"own_rules.{name}")
        words = {key: rule.words for key in declared if (rule := schema.rule_of(declared[key]))}
        assert words == {
            "steps": "a whole number of at least 1",
            "share": "a number from 0 to 1",
            "how": "a or b",
        }
    assert schema.annotations_of("own_rules.Grandchild") == {"flag": bool}
    with pytest.raises(ValueError, match=r"own_broken.py, line 1: "):
        schema.annotations_of("own_broken.Mine")
    assert schema.annotations_of("pytorch_lightning.loggers.TensorBoardLogger") == {}
    assert schema.annotations_of("nothing.at.all") == {}


def test_a_number_of_many_digits_is_out_of_range_like_any_other() -> None:
    with pytest.raises(ValueError, match="trainer.max_epochs must be a whole number from 1 to 1,000,000"):
        schema.check(composed(f"trainer.max_epochs={'9' * 400}"), schema.Train)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("monitor=val/foo", "data.val_size=100"), "monitor=val/foo, but nothing measures it: did you mean val/"),
        (("+trainer.logger=false",), "trainer.logger is set by train.py itself: leave it out"),
        (
            ("callbacks=early_stopping", "callbacks.early_stopping.monitor=test/acc"),
            "callbacks.early_stopping watches test/acc, but the test set chooses nothing: set callbacks.early_",
        ),
        (
            ("model.schedule={_target_:torch.optim.lr_scheduler.ReduceLROnPlateau,monitor:test/loss}",),
            "model.schedule watches test/loss, but the test set chooses nothing: set model.schedule.monitor=val/",
        ),
    ],
)
def test_what_would_be_found_after_an_epoch_or_never_is_said_at_once(words: tuple[str, ...], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        schema.check(composed(*words), schema.Train)
    for metric in ("val/foo", "val/robust_acc", "val/certified_acc"):
        own = composed(f"monitor={metric}", "data.val_size=100", "+callbacks.mine._target_=mine.Measures")
        schema.check(own, schema.Train)  # it may measure that


def test_an_option_that_does_nothing_without_another_is_refused() -> None:
    for words, needed in (
        (("model.attack_steps=10",), "model.epsilon"),
        (("model.cooldown_epochs=1",), "model.distortion or model.elastic or model.stroke"),
        (("data.held_out=last",), "data.val_size"),
    ):
        with pytest.raises(ValueError, match=f"has no effect without {needed}: set that as well, or leave"):
            schema.check_needed(composed(*words), words)
    for words in (("model.attack_steps=10", "model.epsilon=0"), ("experiment=robust", "model.attack_steps=10")):
        schema.check_needed(composed(*words), words)  # a job of a sweep; a recipe that has it


def test_early_stopping_waits_for_what_is_better() -> None:
    for metric, mode in (("val/acc", "max"), ("val/loss", "min")):
        for option in ("monitor", "callbacks.early_stopping.monitor"):
            assert composed("callbacks=early_stopping", f"{option}={metric}").callbacks.early_stopping.mode == mode


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["attack=[fgsm,pgd]"], "attack takes one: set attack=NAME, or add -m and sweep it"),
        (["attack=fgsm,pgd"], "attack takes one name, got fgsm,pgd: add -m to sweep over them"),
        (["export=null"], "export=null names nothing: leave it out, or set export= to a name that --help lists"),
        (["attack=fgsm", "-m", "attack.foo=1"], "unknown key attack.foo"),  # with a flag between options
    ],
)
def test_how_a_group_is_chosen_is_said(words: list[str], line: str, analyze: Command, tmp_path: Path) -> None:
    done = analyze(*words, cwd=tmp_path)
    assert done.status == 1
    assert line in done.err
    assert len(done.err.splitlines()) == 1


def test_no_schedule_can_be_swept_beside_one(train: Command, tmp_path: Path) -> None:
    unswept = train("model.schedule=cosine,null", cwd=tmp_path)
    assert unswept.err == "error: model.schedule takes one name, got cosine,null: add -m to sweep over them\n"
    small = ("data=digits", "network=mlp", "trainer=cpu", "callbacks=none", "trainer.max_epochs=1")
    done = train(*small, "-m", "model.schedule=cosine,null", cwd=tmp_path)
    assert done.status == 0, done.err
    rates = [OmegaConf.load(path).model.schedule for path in sorted(tmp_path.glob("multirun/*/*/config.yaml"))]
    assert len(rates) == 2
    assert rates.count(None) == 1


def test_the_command_that_resumes_has_its_flags_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["--config-dir", "mine", "network=drop", "data=digits"]
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    (tmp_path / "config.yaml").touch()
    monkeypatch.setattr(signals, "folder", tmp_path)
    _, _, *again = shlex.split(signals.again())
    assert again[:2] == words[:2]
    assert again[2].startswith("ckpt_path=")
    assert again[3:] == words[2:]
    get_args_parser().parse_args(again)  # which refuses options behind a flag that is behind others
