"""Explain a trained network and attack it: checkpoint -> sections -> figures, findings, report. See `--help`."""

from cnn_mnist.cli import signals

if __name__ == "__main__":
    signals.listen()

from collections.abc import Sequence

from omegaconf import DictConfig

from cnn_mnist.cli import entry, schema
from cnn_mnist.sweeps import jobs


def main(cfg: DictConfig) -> None:
    """One analysis of a trained network: from a composed configuration to results.json."""
    folder, overrides = entry.run_folder(), entry.overrides()
    entry.check(cfg, schema.Analyze)
    entry.check_device(cfg)

    from hydra.utils import instantiate  # takes seconds: not imported for --help, nor before options are checked

    from cnn_mnist.cli import console
    from cnn_mnist.figures.class_names import class_names
    from cnn_mnist.report import plan, subject
    from cnn_mnist.report.export import pdf
    from cnn_mnist.report.writer import About, Findings
    from cnn_mnist.training.allocator import keep_freed_memory

    console.quiet()
    keep_freed_memory()
    asked = plan.tasks(cfg, overrides)
    if cfg.report == "pdf":
        pdf.browser()  # without one, fail now and not after minutes of work
    needs_data = any(task.needs.data for task in asked)
    sides: Sequence[About]
    names: Sequence[str] = ()
    trusted = {"trusted": entry.own_classes(cfg, "network"), "trusted_data": entry.own_classes(cfg, "data")}
    if cfg.sweep is not None:
        from cnn_mnist.report.sections.sweeps import sweep

        sides = sweep.read(cfg)
    elif cfg.committee is not None:
        from cnn_mnist.report.sections.sweeps import committee

        sides = [found := committee.read(cfg, overrides, **trusted)]
        names = found.members[0].names
    else:
        sides = subjects = subject.choose(cfg, overrides, needs_data=needs_data, **trusted)
        names = subjects[0].names
    findings = Findings(folder, cfg, sides)
    for task in console.parts(asked):
        with findings.attempt(task), class_names(names):
            for side in sides[:1] if task.is_done_once else sides:
                findings.add(task, side, instantiate(task.node, _convert_="all")(side))
    path = findings.close()
    page = path.with_name("report.html")
    print(f"report: {page}")
    if cfg.report == "pdf":
        print(f"report: {pdf.print_page(page)}")
    print(f"results: {path}")
    findings.check()


if __name__ == "__main__":
    entry.run(main, __file__, jobs.do_job)
    signals.done()
