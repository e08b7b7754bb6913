"""Train the lab's network: compose -> build -> fit -> test -> results. `python train.py --help` shows how."""

from cnn_mnist import signals

if __name__ == "__main__":
    signals.listen()

from omegaconf import DictConfig

from cnn_mnist import config, rules


def main(cfg: DictConfig) -> float | None:
    """One run: from a composed configuration to results.json.

    Returns:
        The monitored metric, for sweepers that choose options by it; None where nothing is held out to measure it.
    """
    folder, overrides = config.run_folder(), config.overrides()
    config.check(cfg, rules.TRAIN)

    import pytorch_lightning as pl  # takes seconds, and neither --help nor a typo needs it
    from hydra.utils import instantiate

    from cnn_mnist import checkpoint, console, results, runs
    from cnn_mnist.callbacks import spared, tensorboard, throughput

    console.quiet()
    with runs.open_run(cfg, folder, overrides) as run:
        if run.is_finished:
            print(f"{run.folder} has trained for all of its epochs already\nresults: {run.results}")
            return run.objective
        cfg = run.cfg
        config.check_device(cfg)
        data = run.on(instantiate(cfg.data, _convert_="all").ready())
        config.check_batches(cfg, len(data.train))
        pl.seed_everything(cfg.seed, verbose=False)
        model = instantiate(cfg.model, _convert_="all")
        console.show_architecture(model.network)

        clock, looks = throughput.Throughput(), spared.Spared(instantiate(cfg.callbacks))
        writers = runs.writers(run.folder, data.val_name, cfg.monitor)
        bar = [console.Bar()] if console.has_terminal() else []
        trainer = instantiate(
            cfg.trainer,
            callbacks=[clock, *looks.callbacks, console.EpochLine(), *bar, *writers],
            logger=[instantiate(logger, save_dir=str(run.folder)) for logger in cfg.logger.values()],
            plugins=[checkpoint.CheckpointFiles()],
            default_root_dir=run.folder,
            enable_progress_bar=bool(bar),
            _convert_="all",
        )
        run.begin(model)
        trainer.fit(model, data, ckpt_path=run.checkpoint, weights_only=True)
        timing = clock.timing()  # now: the test brings back the state of the checkpoint it is given
        chosen = runs.chosen(writers)
        trainer.test(model, data, ckpt_path=chosen, verbose=False, weights_only=True)
        record = results.of_training(cfg, data, model, trainer, timing, chosen)
        tensorboard.fill_hparams(trainer, cfg, record)
        path = results.write(run.folder, record)
        console.show_outcome(record, trainer)
        print(f"results: {path}")
        looks.check()
        return run.objective


if __name__ == "__main__":
    config.run(main, __file__)
    signals.done()
