"""`python search.py` as a person runs it, and what a killed search goes on with."""

import json
import re
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import Command, command

FIXED = ("data=digits", "trainer=cpu", "trainer.max_epochs=1", "data.val_size=200")
SPACE = ("model.lr=tag(log,interval(1e-4,1e-1))", "model.batchnorm=choice(true,false)")


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return command("search.py", tmp_path_factory)


@pytest.mark.slow
def test_a_search_resumes_and_is_judged_by_the_hold_out(search: Command, tmp_path: Path) -> None:
    first = search("--trials", "2", *FIXED, *SPACE, cwd=tmp_path)
    assert first.status == 0, first.err
    folder = tmp_path / "multirun" / "search"
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/study.db")
    values = [trial.value for trial in study.trials]
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("trial-*/results.json"))]
    assert values == [run["val/acc"] for run in runs]
    assert all(run["num_val"] == 200 for run in runs)
    killed = study.ask({"model.lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)})  # and never told
    again = search("--trials", "3", *FIXED, *SPACE, cwd=tmp_path)  # the same command, or the options left out
    assert again.status == 0, again.err
    assert "2 of 3 trials are done already" in again.out
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert study.get_trials()[3].params["model.lr"] == killed.params["model.lr"]  # what was at work is tried again
    found = again.results["search"]
    assert found["num_done"] == 3
    assert found["best"]["value"] == pytest.approx(study.best_value)
    html = (folder / "report.html").read_text()
    assert re.search(r'data-key="search\.best\.value"', html)
    other = search("--trials", "3", *FIXED, "model.lr=interval(0.1,0.2)", cwd=tmp_path)
    assert other.status == 1
    assert "holds a search of other options" in other.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.val_size=0",), "may not choose by the test set"),
        (("--trials", "0"), "--trials must be at least 1"),
        (("model.lr=shuffle(interval(",), "error: "),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], message: str, search: Command) -> None:
    done = search(*words)
    assert done.status == 1
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(done.cwd.iterdir())


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import search  # the entry point beside the package

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["search.py"])
    with pytest.raises(ValueError, match="pip install -e"):
        search.main()


@pytest.mark.slow
def test_a_failing_trial_is_said_and_the_status_is_not_0(search: Command) -> None:
    done = search("--trials", "1", *FIXED, "model.lr=choice(1e30)", "model.lrr=1")
    assert done.status == 1
    assert "unknown key model.lrr" in done.err
