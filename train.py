"""Train the lab's network: compose -> build -> fit -> test -> results. `python train.py --help` shows how."""

from omegaconf import DictConfig

from cnn_mnist import config, rules


def main(cfg: DictConfig) -> None:
    """One run: from a composed configuration to results.json."""
    folder, overrides = config.run_folder(), config.overrides()
    rules.check(cfg, rules.TRAIN)

    import pytorch_lightning as pl  # takes seconds, and neither --help nor a typo needs it
    from hydra.utils import instantiate

    from cnn_mnist import checkpoint, console, results
    from cnn_mnist.callbacks.tensorboard import fill_hparams
    from cnn_mnist.callbacks.throughput import Throughput

    console.quiet()
    run = checkpoint.open_run(cfg, folder, overrides)
    if run.is_finished:
        print(f"{run.folder} has trained for all of its epochs already\nresults: {run.results}")
        return
    cfg = run.cfg
    config.check_device(cfg)
    data = instantiate(cfg.data, _convert_="all")
    data.prepare_data()
    data.setup()
    run = run.on(data.dataset)  # the digits, where MNIST was not to be had
    config.check_batches(cfg, len(data.train))
    pl.seed_everything(cfg.seed, verbose=False)
    model = instantiate(cfg.model, _convert_="all")
    console.show_architecture(model.network)

    throughput = Throughput()
    writers = checkpoint.writers(run.folder, data.val_name)
    loggers = [instantiate(logger, save_dir=str(run.folder)) for logger in cfg.logger.values()]
    checkpoint.keep_curves(loggers, run.step)
    trainer = instantiate(
        cfg.trainer,
        callbacks=[throughput, *instantiate(cfg.callbacks).values(), console.EpochLine(), *writers],
        logger=loggers,
        default_root_dir=run.folder,
        enable_progress_bar=console.has_terminal(),
        _convert_="all",
    )
    results.write_config(run.folder, cfg)
    trainer.fit(model, data, ckpt_path=run.checkpoint)
    timing = throughput.timing()  # now: the test brings back the state of the checkpoint it is given
    chosen = writers[0]  # by the hold-out; without one it is the last
    trainer.test(model, data, ckpt_path=chosen.best_model_path, verbose=False)
    record = results.of_training(cfg, data, model, trainer, timing, chosen)
    fill_hparams(trainer, cfg, record)
    print(f"results: {results.write(run.folder, record)}")


if __name__ == "__main__":
    config.run(main, __file__)
