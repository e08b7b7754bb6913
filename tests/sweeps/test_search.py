"""`python search.py` in real processes, and resuming a killed search."""

import json
import re
import subprocess
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import Command

FIXED = ("data=digits", "trainer=cpu", "trainer.max_epochs=1", "data.val_size=200")
SPACE = ("model.lr=tag(log,interval(1e-4,1e-1))", "model.batchnorm=choice(true,false)")


@pytest.mark.slow
def test_a_search_resumes_and_is_judged_by_the_hold_out(search: Command, tmp_path: Path) -> None:
    first = search("--trials", "2", *FIXED, *SPACE, cwd=tmp_path)
    assert first.status == 0, first.err
    (folder,) = (tmp_path / "multirun").glob("search-*")
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/study.db")
    values = [trial.value for trial in study.trials]
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("trial-*/results.json"))]
    assert values == [run["val/acc"] for run in runs]
    assert all(run["num_val"] == 200 for run in runs)
    killed = study.ask({"model.lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)})  # and never told
    where = ("--folder", str(folder))
    again = search("--trials", "3", *where, *FIXED, *SPACE, cwd=tmp_path)  # or the options left out
    assert again.status == 0, again.err
    assert "2 of 3 trials are done already" in again.out
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert study.get_trials()[3].params["model.lr"] == killed.params["model.lr"]  # the interrupted trial is repeated
    found = again.results["search"]
    assert found["num_done"] == 3
    assert found["best"]["value"] == pytest.approx(study.best_value)
    html = (folder / "report.html").read_text()
    assert re.search(r'data-key="search\.best\.value"', html)
    other = search("--trials", "3", *where, *FIXED, "model.lr=interval(0.1,0.2)", cwd=tmp_path)
    assert other.status == 1
    assert "holds a search of other options" in other.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.val_size=0",), "may not choose by the test set"),
        (("--trials", "0"), "--trials must be at least 1"),
        (("model.lr=shuffle(interval(",), "model.lr=shuffle(interval( has letters that mean something to Hydra"),
        (("--metric", "test/acc"), "--metric must be one of the hold-out, such as val/acc or val/loss, got test/acc"),
        pytest.param(
            ("data=digits", "--trials", "3"),
            "data.val_size must be 0 or from 10 to 1,490 of the 1,500 training images",
            marks=pytest.mark.slow,
        ),
        (("model.lrr=1", "--trials", "3"), "unknown key model.lrr: did you mean model.lr?"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], message: str, search: Command) -> None:
    done = search(*words)
    assert done.status == 1
    assert done.err.startswith("error: ")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not [path for path in done.cwd.rglob("*") if path.is_file()]
    assert "trial" not in done.out


def test_a_first_trial_that_fails_leaves_nothing_in_a_folder_that_was_there(search: Command, tmp_path: Path) -> None:
    mine = tmp_path / "is it? 100% #1"
    mine.mkdir()
    done = search("--folder", str(mine), "data=digits", "model.lrr=1", "--trials", "1")
    assert "unknown key model.lrr" in done.err
    assert not [*mine.iterdir()]


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import search  # the entry point beside the package

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["search.py"])
    with pytest.raises(ValueError, match="pip install "):
        search.main()


@pytest.mark.slow
def test_a_failing_trial_is_said_and_the_others_go_on(search: Command) -> None:
    done = search("--trials", "2", "--folder", "multirun/lr=x?", *FIXED, "model.lr=choice(1e30,1e-3)", "--seed", "1")
    assert done.status == 1 or "trial 1" in done.out
    assert "Traceback" not in done.err
    assert (done.cwd / "multirun" / "lr=x?" / "trial-000" / "config.yaml").is_file()


@pytest.mark.slow
def test_a_search_by_a_loss_wants_the_lowest(search: Command) -> None:
    words = ("--trials", "2", "--folder", "multirun/mine", "--metric", "val/loss")
    done = search(*words, *FIXED, "model.lr=tag(log,interval(1e-4,1e-2))")
    assert done.status == 0, done.err
    found = done.results["search"]
    assert found["metric"] == "val/loss"
    tile = re.search(r'data-key="search.best.value"[^>]*>([^<]*)</data>', (done.folder / "report.html").read_text())
    assert tile
    assert float(tile[1]) == pytest.approx(found["best"]["value"], rel=1e-3)  # and no per cent
    assert found["best"]["value"] == pytest.approx(min(trial["value"] for trial in found["trials"]))
    other = search("--folder", "multirun/mine", "--metric", "val/acc", cwd=done.cwd)
    assert "holds a search by val/loss, not val/acc: set another --folder" in other.err


def test_callbacks_are_left_out_unless_one_of_them_measures_the_metric() -> None:
    from cnn_mnist.sweeps.search import _parsed

    for recipe, metric, callbacks in (
        ("tuned", None, ["callbacks=none"]),
        ("certified", "val/loss", ["callbacks=none"]),
        ("best", None, ["callbacks=[ema]"]),  # whose weights it trains
        ("robust", "val/acc", ["callbacks=[ema]"]),
        ("robust", "val/robust_acc", []),
    ):
        fixed, _ = _parsed([f"experiment={recipe}"], metric, None)
        assert [word for word in fixed if word.startswith("callbacks")] == callbacks


def test_a_search_in_two_calls_tries_what_one_call_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cnn_mnist.cli import signals
    from cnn_mnist.sweeps import search

    def done(command: list[str]) -> subprocess.CompletedProcess[str]:
        run = next(word for word in command if word.startswith("hydra.run.dir=")).partition("=")[2]
        Path(run).mkdir()
        values = {"val/acc": float(command[-3].partition("=")[2]), "fit_seconds": 1, "dataset": "digits"}
        (Path(run) / "results.json").write_text(json.dumps(values))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(search, "_done", done)
    monkeypatch.setattr(signals, "search", None)
    tried = {}
    for name, calls in (("one", [14]), ("two", [3, 14])):
        for num_trials in calls:
            search.search(
                ["model.lr=interval(0.001,0.1)"],
                num_trials=num_trials,
                folder=tmp_path / name,
                seed=0,
                write_page=lambda *_: None,
            )
        study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / name}/study.db")
        tried[name] = [trial.params["model.lr"] for trial in study.trials]
    assert tried["one"] == tried["two"]
    assert len(set(tried["one"])) == 14


def test_the_figures_show_each_trial_the_best_so_far_and_each_option() -> None:
    from cnn_mnist.figures.canvas import Lines, draw_lines
    from cnn_mnist.report.sections.sweeps.search import figures_of

    study = optuna.create_study(direction="maximize")
    scores = iter([0.5, 0.25, 0.75])

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("model.lr", 1e-4, 1e-1, log=True)
        trial.suggest_categorical("model.batchnorm", [True, False])
        return next(scores)

    study.optimize(objective, n_trials=3)
    figures = figures_of(study, "val/acc")
    assert set(figures) == {"search/history", "search/against/model.lr", "search/against/model.batchnorm"}
    history = figures["search/history"]
    assert isinstance(history, Lines)
    assert [list(line.y) for line in history.lines] == [[0.5, 0.25, 0.75], [0.5, 0.5, 0.75]]
    assert all(tick == round(tick) for tick in draw_lines(history).axes[0].get_xticks())
    lowest = figures_of(study, "val/loss")["search/history"]
    assert isinstance(lowest, Lines)
    assert list(lowest.lines[1].y) == [0.5, 0.25, 0.25]
    axes = figures["search/against/model.lr"].axes[0]  # type: ignore[union-attr]
    assert axes.get_xscale() == "log"
    assert list(axes.lines[0].get_xdata()) == [trial.params["model.lr"] for trial in study.trials]


def test_a_new_option_can_be_searched() -> None:
    from cnn_mnist.sweeps.search import _parsed

    _, space = _parsed(["+trainer.gradient_clip_val=interval(0.1,1.0)"], None, None)
    assert [*space] == ["+trainer.gradient_clip_val"]
