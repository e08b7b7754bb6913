"""Take a trained network apart and attack it: checkpoint -> parts -> figures, tensors, findings. `--help` shows how."""

from omegaconf import DictConfig

from cnn_mnist import config, rules


def main(cfg: DictConfig) -> None:
    """One look at a trained network: from a composed configuration to results.json."""
    folder, overrides = config.run_folder(), config.overrides()
    rules.check(cfg, rules.ANALYZE)
    config.check_device(cfg)

    from hydra.utils import instantiate  # takes seconds with what it brings, and neither --help nor a typo needs it

    from cnn_mnist import console, subject
    from cnn_mnist.allocator import keep_freed_memory
    from cnn_mnist.findings import Findings

    console.quiet()
    keep_freed_memory()
    tasks = subject.tasks(cfg, overrides)
    chosen = subject.choose(cfg, overrides, [task.name for task in tasks])
    findings = Findings(folder, cfg, chosen)
    for task in tasks:
        with console.working_on(task.name):
            findings.add(task, instantiate(task.node, _convert_="all")(chosen))
    print(f"results: {findings.close()}")


if __name__ == "__main__":
    config.run(main, __file__)
