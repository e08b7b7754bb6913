"""docs/extending.md as pasted: the user's own network, data, callback, logger, optimiser, analysis and attack."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import ROOT, Command, Done

CONF = ("--config-dir", "my_conf")


@pytest.fixture(scope="module")
def own(train: Command, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run with the callback of the recipes, in a folder that holds all of them."""
    folder = tmp_path_factory.mktemp("own")
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    recipes = re.findall(r"`(\S+\.(?:py|yaml))`[^`]*```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    assert len(recipes) == 13
    for name, content in recipes:
        body = [line for line in content.splitlines() if line and not line.startswith(("import ", "from "))]
        assert len(body) < 20, name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    done = train(
        *CONF, "data=digits", "trainer=cpu", "trainer.max_epochs=2", "callbacks=sizes", "callbacks.sizes.bins=9",
        "logger=[tensorboard,csv,json_lines]", "model.optimizer=nadam",
        cwd=folder,
    )  # fmt: skip
    assert done.status == 0, done.err
    return done


def test_a_network_is_trained_and_looked_at(own: Done, train: Command, analyze: Command) -> None:
    network = (*CONF, "network=wide", "network.channels=8")
    done = train(*network, "data=digits", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none", cwd=own.cwd)
    assert done.status == 0, done.err
    assert done.results["network"] == "wide.Wide"
    assert done.results["num_parameters"] == 8 * 81 + 8 + 8 * 49 * 10 + 10
    looked = analyze(*network[:3], "analysis=filters", f"ckpt_path={done.folder}", cwd=own.cwd)
    assert looked.status == 0, looked.err
    assert looked.results["filters"]["kernel_size"] == 9


def test_data_are_trained_on_and_looked_at(own: Done, train: Command, analyze: Command) -> None:
    words = (*CONF, "data=parity", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none")
    done = train(*words, cwd=own.cwd)
    assert done.status == 0, done.err
    assert (done.results["dataset"], done.results["num_train"]) == ("parity.Parity", 1500)
    looked = analyze(*CONF, "analysis=predictions", f"ckpt_path={done.folder}", cwd=own.cwd)
    assert looked.status == 0, looked.err
    assert looked.results["predictions"]["accuracy"] == pytest.approx(done.results["test/acc"])
    refused = analyze("analysis=predictions", f"ckpt_path={done.folder}", cwd=own.cwd)
    assert "trained on data of your own, parity.Parity" in refused.err
    assert len(refused.err.splitlines()) == 1


def test_seeds_draw_differently_from_data_of_ones_own(own: Done, train: Command) -> None:
    (own.cwd / "seeds.py").write_text(
        "import torch\n"
        "from pytorch_lightning.callbacks import Callback\n"
        "class Seeds(Callback):\n"
        "    def on_train_batch_end(self, *_):\n"
        "        print('drawn', torch.initial_seed())\n"
    )
    words = (*CONF, "data=parity", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none")
    words = (*words, "+callbacks.seeds._target_=seeds.Seeds")
    drawn = []
    for seed in (0, 1):
        done = train(*words, f"seed={seed}", cwd=own.cwd)
        assert done.status == 0, done.err
        drawn.append({line for line in done.out.splitlines() if line.startswith("drawn ")})
        stored = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert stored["datamodule_hyper_parameters"]["seed"] == seed
    assert len(drawn[0]) == len(drawn[1]) == 15
    assert not drawn[0] & drawn[1]


def test_a_logger_gets_every_point(own: Done) -> None:
    lines = [json.loads(line) for line in (own.folder / "metrics.jsonl").read_text().splitlines()]
    curve = [line["test/acc"] for line in lines if "test/acc" in line]
    assert len(curve) == 2
    assert curve[-1] == own.results["test/acc"]


def test_an_optimiser_is_used(own: Done) -> None:
    state = torch.load(own.folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
    assert state["param_groups"][0]["momentum_decay"] == 0.004


def tags(folder: Path, kind: str) -> list[str]:
    """What TensorBoard's own reader finds."""
    found = EventAccumulator(str(folder)).Reload().Tags()[kind]
    return list(found)


def test_help_shows_them(own: Done) -> None:
    for script, names in (("analyze.py", ("brightness", "gradient_value")), ("train.py", ("sizes",))):
        command = [sys.executable, str(ROOT / script), *CONF, "--help"]
        done = subprocess.run(command, cwd=own.cwd, capture_output=True, text=True, timeout=60, check=True)
        for name in names:
            assert re.search(rf"^(analysis|attack|callbacks): .*\b{name}\b", done.stdout, re.MULTILINE), name


def test_a_callback_is_on_record_and_in_tensorboard(own: Done) -> None:
    assert own.results["weights/fc1"] > 0
    assert "weights/fc1" in tags(own.folder, "images")
    assert "weights/fc1" in tags(own.folder, "scalars")
    assert "weights/fc1" in (own.folder / "metrics.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("words", "key", "tag"),
    [
        (("analysis=brightness", "brightness.num_images=60"), "brightness", "brightness/scatter"),
        (("attack=gradient_value", "attack.num_images=60"), "attack", "adversarial/gradient_value"),
    ],
)
def test_an_analysis_and_an_attack_are_on_record_on_the_page_and_in_tensorboard(
    words: tuple[str, str], key: str, tag: str, own: Done, analyze: Command
) -> None:
    done = analyze(*CONF, *words, f"ckpt_path={own.folder}", cwd=own.cwd)
    assert done.status == 0, done.err
    found = done.results[key]
    assert found == "gradient_value" or found["num_images"] == 60
    assert tag in tags(done.folder, "images")
    page = (done.folder / "report.html").read_text()
    name = words[0].partition("=")[2]
    assert f'<section id="{name}">' in page
    assert name.replace("_", " ").capitalize() in page


def test_the_curve_of_an_own_metric_is_on_the_page(own: Done, analyze: Command) -> None:
    done = analyze("analysis=training", f"ckpt_path={own.folder}", cwd=own.cwd)
    assert done.status == 0, done.err
    assert len(done.results["training"]["curves"]["weights/fc1"]) == 2
    assert 'data-key="training.curves.weights/fc1.1"' in (done.folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("analyze.py", ("analysis=brightness", "brightness.num_images=0"), "brightness.num_images must be a whole"),
        ("analyze.py", ("attack=gradient_value", "attack.epsilon=2"), "attack.epsilon must be a number from 0 to 1"),
        ("analyze.py", ("attack=gradient_valu",), "attack=gradient_valu does not exist: did you mean"),
        ("train.py", ("callbacks=sizes", "callbacks.sizes.bins=0"), "callbacks.sizes.bins must be a whole"),
        ("train.py", ("callbacks=sizes", "callbacks.sizes.bin=9"), "did you mean callbacks.sizes.bins?"),
        ("analyze.py", ("attack=misspelt",), "attack gradient_value.gradient cannot be imported: AttributeError"),
        ("analyze.py", ("attack=short",), "gradient_value.gradient_value needs num_images: add it to the file of"),
        ("analyze.py", ("attack=short", "attack.num_images=9"), "attack.num_images is an argument of gradient_value"),
        ("analyze.py", ("attack=odd",), "gradient_value.gradient_value takes no colour: remove it from"),
        ("analyze.py", ("attack=whole",), "the file of attack=gradient_value lacks the line `_partial_: true`"),
        ("analyze.py", ("analysis=homeless",), "first line of an analysis's file must be `# @package` and its name"),
    ],
)  # fmt: skip
def test_their_options_are_checked_like_any_other(
    script: str, words: tuple[str, ...], message: str, own: Done, request: pytest.FixtureRequest
) -> None:
    shipped = "_target_: gradient_value.gradient_value\nepsilon: 0.3\n"
    for name, text in (
        ("attack/misspelt", "_target_: gradient_value.gradient\n_partial_: true\n"),
        ("attack/short", f"{shipped}_partial_: true\n"),
        ("attack/odd", f"{shipped}_partial_: true\nnum_images: 9\ncolour: red\n"),
        ("attack/whole", f"{shipped}num_images: 9\n"),
        ("analysis/homeless", "_target_: brightness.brightness\n_partial_: true\nnum_images: 9\n"),
    ):
        (own.cwd / "my_conf" / f"{name}.yaml").write_text(text)
    done: Done = request.getfixturevalue(script.removesuffix(".py"))(*CONF, *words, cwd=own.cwd)
    assert done.status == 1
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_a_file_with_the_name_of_a_shipped_one_is_refused(train: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "network").mkdir(parents=True)
    file = tmp_path / "mine" / "network" / "mlp.yaml"
    file.write_bytes((ROOT / "conf" / "network" / "mlp.yaml").read_bytes())
    words = ("--config-dir", "mine", "network=mlp", "model.lr=-1")
    copied = train(*words, cwd=tmp_path)
    assert copied.err.startswith("error: model.lr must be")  # the same file does no harm
    file.write_text("_target_: mine.Network\n")
    done = train(*words, cwd=tmp_path)
    says = "mine/network/mlp.yaml is hidden by the project's file of the same name: give it another one"
    assert done.err == f"error: {says}\n"
