"""The benchmarks run: each on a few steps, and its record is kept with where it was measured."""

import json
import re
import statistics
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from benchmarks import (
    commands,
    pictures,
    processes,
    results,
    results_page,
    robustness,
    robustness_page,
    speed_run,
    training,
)
from cnn_mnist.data.batches import Batch
from cnn_mnist.sweeps import jobs
from tests.conftest import ROOT, Done, trained

pytestmark = pytest.mark.mnist


def test_a_record_says_where_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RECORDS", tmp_path)
    processes.keep("speed", {"rounds": 3})
    record = json.loads((tmp_path / "speed.json").read_text())
    assert record["rounds"] == 3
    assert {"date", "device", "num_threads", "git_commit", "versions"} <= record.keys()


@pytest.mark.parametrize("way", ["in_memory", "allocator", "bf16"])
def test_every_kind_of_loop_trains(way: str, mnist_root: Path) -> None:
    assert training.images_per_second(way, True, 5, mnist_root) > 0


def test_a_network_is_shown_pictures(
    run: Done, mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "RECORDS", tmp_path)
    words = [f"digits={run.folder},{run.folder}", "--pictures=8", f"--root={mnist_root}"]
    monkeypatch.setattr("sys.argv", ["pictures", *words])
    pictures.main()
    record = json.loads((tmp_path / "pictures.json").read_text())
    assert (record["num_images"], record["num_pictures"], record["digits"]["num_runs"]) == (10_000, 8, 2)
    assert 0.5 < record["digits"]["others"] <= 1
    assert record["digits"]["pictures"] * 8 == pytest.approx(round(record["digits"]["pictures"] * 8), abs=1e-3)


def test_a_network_is_attacked_once_and_tabled(
    run: Done, mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(robustness, "CACHE", tmp_path / "parts")
    monkeypatch.setattr(robustness, "PART", 5)
    monkeypatch.setattr(results_page, "PAGE", tmp_path / "RESULTS.md")
    monkeypatch.setattr(results_page, "RECORD", tmp_path / "results.json")
    kept = json.loads((ROOT / "docs" / "results.json").read_text())
    others = kept["robustness"]["networks"]
    pair = [others[name][0].get("weights") for name in robustness.PAIR]
    kept["robustness"]["checklist"] = {
        "points": [],
        "num_images": 0,
        "num_holding": 0,
        "num_points": 0,
        "weights": pair,
    }
    (tmp_path / "results.json").write_text(json.dumps(kept))
    words = [f"digits={run.folder}", f"--root={mnist_root}", "--images=12", "--boundary-images=4", "--write"]
    for option in ("--images=10001", "--boundary-images=0"):
        monkeypatch.setattr("sys.argv", ["robustness", *words, option])
        with pytest.raises(SystemExit):
            robustness.main()
        assert "must be in 1..10000, got" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["robustness", *words, "--remark=alone"])
    robustness.main()
    first = capsys.readouterr().out
    known = json.loads((tmp_path / "results.json").read_text())["robustness"]["networks"]
    (tested,) = known["digits"]
    assert {name: known[name] for name in others} == others
    shares = {name: found["share"] for name, found in tested["measured"].items()}
    assert shares.keys() == set(robustness_page.COLUMNS)
    assert shares["certified"] <= shares["auto"] <= min(shares[name] for name in ("apgd", "fgsm", "clean"))
    row = next(line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("| `data=digits"))
    assert f" {tested['seed']} | {shares['clean']:.2%} | ".replace("%", " %") in row
    (folder,) = (tmp_path / "parts").iterdir()
    assert len(list(folder.glob("clean-12-*.json"))) == 3
    (folder / "clean-12-2.json").unlink()
    measured = Mock(wraps=robustness.measured_share)
    monkeypatch.setattr(robustness, "measured_share", measured)
    monkeypatch.setattr("sys.argv", ["robustness", *words])
    robustness.main()  # what was measured is not measured again
    assert capsys.readouterr().out.splitlines()[1:] == first.splitlines()[1:]
    ((_, measure, images, *_),) = (call.args for call in measured.call_args_list)
    assert (measure, len(images)) == ("clean", 5)
    monkeypatch.setattr("sys.argv", ["robustness", *words, "--measures=clean"])
    robustness.main()  # and what is measured alone is added to what is known
    again = json.loads((tmp_path / "results.json").read_text())["robustness"]["networks"]
    assert again["digits"][0]["measured"].keys() == tested["measured"].keys()
    assert again["digits"][0]["remark"] == "alone"
    assert "checklist" in json.loads((tmp_path / "results.json").read_text())["robustness"]  # of a pair that has stayed
    words[0] = f"robust={run.folder}"
    monkeypatch.setattr("sys.argv", ["robustness", *words, "--measures=clean"])
    robustness.main()
    assert "checklist" not in json.loads((tmp_path / "results.json").read_text())["robustness"]


def test_an_image_that_is_proven_is_not_attacked(digits: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    network, (images, labels) = trained(False), (values[:20] for values in digits)
    attack = Mock(wraps=robustness.ATTACKS["fgsm"])
    monkeypatch.setitem(robustness.ATTACKS, "fgsm", attack)
    nothing, everything = torch.zeros(20, dtype=torch.bool), torch.ones(20, dtype=torch.bool)
    clean = robustness.measured_share(network, "clean", images, labels, None)
    assert robustness.measured_share(network, "fgsm", images, labels, everything) == clean
    assert not attack.called
    attacked = robustness.measured_share(network, "fgsm", images, labels, nothing)
    some = torch.arange(20) % 2 == 0
    assert attacked < robustness.measured_share(network, "fgsm", images, labels, some) < clean
    assert torch.equal(attack.call_args.args[1], images[~some])


def test_of_a_network_without_bounds_every_image_is_attacked(digits: Batch) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.GELU()).eval()
    assert not robustness.known_to_hold(network, digits.images[:20], digits.labels[:20]).any()


def test_networks_are_tabled_with_those_attacked_on_as_many_images() -> None:
    runs = json.loads((ROOT / "docs" / "results.json").read_text())["robustness"]["networks"]["undefended"]
    numbers = ((1000, 500), (1000, 100), (10_000, 1000))
    networks = {
        str(number): [run | dict(zip(("num_images", "num_boundary_images"), number, strict=True)) for run in runs]
        for number in numbers
    }
    page = robustness_page.robustness({"epsilon": 0.3, "networks": networks})
    rows = [line for line in page if line.startswith("| `experiment=")]
    assert sum(" mean of " not in row for row in rows) == len(numbers) * len(runs)
    assert sum(line.startswith("| `python train.py ...`") for line in page) == 2


def test_what_is_known_of_other_seeds_and_of_fewer_images_stays_on_record() -> None:
    network = {"recipe": "robust", "num_boundary_images": 10}
    few, other, every, next_seed, next_few = (
        network | {"weights": weights, "seed": seed, "num_images": number, "measured": {measure: {"share": 0.9}}}
        for weights, seed, number, measure in (
            ("a", 0, 1000, "pgd"),
            ("b", 0, 1000, "pgd"),
            ("a", 0, 10_000, "auto"),
            ("c", 1, 10_000, "auto"),
            ("c", 1, 1000, "auto"),
        )
    )
    assert robustness.extended([few, other], [every]) == [every, few]
    assert robustness.extended([next_few, next_seed, other], [every]) == [every, next_seed, next_few]
    assert robustness.extended([next_seed | {"recipe": "certified"}], [every]) == [every]
    again = every | {"measured": {"clean": {"share": 0.99}}}
    assert robustness.extended([every, few], [again]) == [
        every | {"measured": every["measured"] | again["measured"]},
        few,
    ]


def test_the_seeds_of_a_recipe_have_a_mean() -> None:
    runs = [
        {"overrides": ["experiment=robust", f"seed={seed}"], "seed": seed, "measured": {"clean": {"share": share}}}
        for seed, share in enumerate((0.97, 0.98, 0.99))
    ]
    runs[0]["measured"]["auto"] = {"share": 0.9}  # not of every seed
    (row,) = robustness_page.mean_rows([*runs, runs[0] | {"overrides": ["experiment=paper"]}])
    assert row.split(" | ")[:4] == ["| `experiment=robust`", "mean of 3", "98.00 % ± 1.00 %", ""]
    assert "90" not in row


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "there are no networks: name some, or train them with python -m benchmarks.results"),
        (["outputs/run"], "a network must be NAME=RUN[,RUN], got outputs/run"),
        (["a=outputs/run"], "No such file or directory: 'outputs/run/results.json'"),
        (["a=outputs/run", "--measures=clean,pdg"], "--measures must be of clean,auto,.*, got pdg"),
    ],
)
def test_what_cannot_be_attacked_is_refused(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["robustness", *words])
    with pytest.raises(SystemExit):
        robustness.main()
    assert re.search(says.replace("[", r"\["), capsys.readouterr().err)


def test_a_commands_cost_is_that_of_its_process() -> None:
    found = commands.cost(("-c", "held = bytearray(200_000_000); sum(range(3_000_000))"))
    assert found["peak_megabytes"] > 200
    assert 0 < found["cpu_seconds"] < 1.5 * found["seconds"]


@pytest.mark.slow
def test_results_are_measured_and_written_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "outputs" / "rehearsal"
    short = ["data=digits", "callbacks=none", "trainer.max_epochs=1"]
    monkeypatch.setattr("sys.argv", ["results", "paper", "--rehearse", "--seeds=3", *short])
    results.main()
    record = json.loads((place / "docs" / "results.json").read_text())
    runs = jobs.jobs(place / "multirun" / "results-paper")
    plain, normalised = ([run for run in runs if run.results["batchnorm"] == norm] for norm in (False, True))
    assert [run.results["seed"] for run in runs] == [0, 0, 1, 1, 2, 2]  # a pair is run one after the other
    values = [run.results["test/acc"] for run in plain]
    assert record["accuracy"]["paper"]["accuracies"] == values
    assert record["accuracy"]["paper"]["mean"] == pytest.approx(statistics.mean(values))
    assert record["accuracy"]["paper"]["options"] == ["experiment=paper", f"data.root={tmp_path / 'data'}", *short]
    seconds = [[run.results["fit_seconds"] for run in runs] for runs in (normalised, plain)]
    ratios = [with_norm / without for with_norm, without in zip(*seconds, strict=True)]
    paired = record["paired"]["paper"]
    assert paired["time_ratio"] == pytest.approx(statistics.geometric_mean(ratios))
    assert paired["time_low"] < paired["time_ratio"] < paired["time_high"]
    for number, smoothing in ((1, "0.2"), (2, "0.1")):  # the second finds the other run in the folder
        monkeypatch.chdir(tmp_path)
        words = ["best", "--rehearse", f"--seeds={number}", *short, f"model.label_smoothing={smoothing}"]
        monkeypatch.setattr("sys.argv", ["results", *words])
        results.main()
    record = json.loads((place / "docs" / "results.json").read_text())
    assert record["accuracy"].keys() == {"paper", "paper_batchnorm", "best"}
    assert (record["accuracy"]["best"]["num_seeds"], record["committee"]["num_members"]) == (2, 2)
    page = (place / "RESULTS.md").read_text()
    assert page == results_page.page(record)
    assert f"| this network | committee of 2 | {record['committee']['accuracy']:.2%}".replace("%", " %") in page


def test_the_record_is_of_the_same_options_as_the_next_one() -> None:
    record = json.loads((ROOT / "docs" / "results.json").read_text())
    options = {recipe.name: [f"experiment={recipe.name}", *recipe.options] for recipe in results.RECIPES}
    found = {name.removesuffix("_batchnorm"): entry["options"] for name, entry in record["accuracy"].items()}
    assert found == {name: options[name] for name in found}
    assert {*record["speed"]["plain"]} == {*speed_run.PLAIN, "trainer=cpu"}
    assert [row["options"] for row in record["speed"]["rows"]] == list(map(" ".join, speed_run.RECIPES.values()))


@pytest.mark.slow
def test_a_rehearsal_attacks_its_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commanded = Mock()
    with monkeypatch.context() as patched:
        patched.setattr(results, "command", commanded)
        patched.setattr("sys.argv", ["results", "attacks", "--rehearse"])
        results.main()
    commanded.assert_called_once_with("-m", "benchmarks.robustness", "--root", str(tmp_path / "data"))
    assert Path.cwd() == tmp_path / "outputs" / "rehearsal"
    results.command("-m", "benchmarks.robustness", "--help")  # it is found from there


@pytest.mark.slow
def test_the_clock_runs_from_the_start_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("data=digits", "trainer.max_epochs=2")
    before = time.time()
    found = speed_run.timed(options, 3)
    whole = time.time() - before
    assert 0 < found["from_first_step"] < found["from_start"] < whole
    record = next(tmp_path.rglob("results.json"))
    assert found["accuracy"] == json.loads(record.read_text())["test/acc"]
    assert speed_run.timed(options, 3) == found  # not measured again
    record.with_name("measured.json").unlink()  # killed before its end: from the beginning, and not from its checkpoint
    record.unlink()
    assert speed_run.timed(options, 3)["accuracy"] == found["accuracy"]


@pytest.mark.parametrize(
    ("curve", "is_spike"),
    [
        ([0.99, 0.985, 0.986], True),  # also where the epoch before was worse
        ([0.9904, 0.9874], True),  # the bound itself
        ([0.99, 0.988, 0.991], False),
        ([0.98], False),
    ],
)
def test_a_spike_is_a_last_epoch_far_below_the_best(curve: list[float], is_spike: bool, tmp_path: Path) -> None:
    runs = []
    for seed, values in enumerate(([0.98, 0.99], curve)):
        lines = [f"{epoch},{epoch},{value}" for epoch, value in enumerate(values)]
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "metrics.csv").write_text("\n".join(["epoch,step,test/acc", *lines, ""]))
        runs.append(jobs.Job([], jobs.DONE, tmp_path / str(seed), results={"seed": seed, "test/acc": values[-1]}))
    found = results.spikes(runs)
    assert found["num_spikes"] == is_spike
    if is_spike:
        assert found["deepest"]["seed"] == 1
        assert found["deepest"]["fall"] == pytest.approx(max(curve) - curve[-1])
    assert 0 <= found["low"] <= found["num_spikes"] / 2 <= found["high"] <= 1


def test_runs_of_two_machines_are_not_averaged() -> None:
    facts = {"recipe": "paper", "batchnorm": False, "num_parameters": 1, "epochs": 1, "versions": {}, "num_threads": 2}
    runs = [jobs.Job([], jobs.DONE, results=facts | {"device": device, "test/acc": 0.9}) for device in ("one", "other")]
    with pytest.raises(SystemExit, match="the runs of paper differ in device"):
        results.summary("paper", runs)


def test_unknown_parts_and_zero_seeds_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in ((["--seeds=0"], "--seeds must be at least 1"), (["papers"], "there is no part papers: choose")):
        monkeypatch.setattr("sys.argv", ["results", *words])
        with pytest.raises(SystemExit):
            results.main()
        assert says in capsys.readouterr().err
