"""Take a trained network apart and attack it: checkpoint -> parts -> figures, findings, report. `--help` shows how."""

from cnn_mnist import signals

if __name__ == "__main__":
    signals.listen()

from omegaconf import DictConfig

from cnn_mnist import config, rules


def main(cfg: DictConfig) -> None:
    """One look at a trained network: from a composed configuration to results.json."""
    folder, overrides = config.run_folder(), config.overrides()
    config.check(cfg, rules.ANALYZE)
    config.check_device(cfg)

    from hydra.utils import instantiate  # takes seconds with what it brings, and neither --help nor a typo needs it

    from cnn_mnist import console, distributed, seeds, subject, tasks
    from cnn_mnist.allocator import keep_freed_memory
    from cnn_mnist.findings import Findings

    if distributed.rank():
        distributed.serve()
        return
    console.quiet()
    keep_freed_memory()
    asked = tasks.tasks(cfg, overrides)
    sides = seeds.read(cfg) if cfg.sweep else subject.choose(cfg, overrides, [task.name for task in asked])
    findings = Findings(folder, cfg, sides)
    for task in console.parts(asked):
        with findings.attempt(task):
            for side in sides[:1] if task.is_of_one else sides:
                findings.add(task, side, instantiate(task.node, _convert_="all")(side))
    path = findings.close()
    print(f"report: {path.with_name('report.html')}")
    print(f"results: {path}")
    distributed.dismiss()
    findings.check()


if __name__ == "__main__":
    config.run(main, __file__)
    signals.done()
