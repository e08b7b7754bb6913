"""Train a network: compose -> build -> fit -> test -> results. `python train.py --help` shows how."""

from cnn_mnist.cli import signals

if __name__ == "__main__":
    signals.listen()

from omegaconf import DictConfig

from cnn_mnist.cli import entry, schema
from cnn_mnist.sweeps import jobs


def main(cfg: DictConfig) -> float | None:
    """One run: from a composed configuration to results.json.

    Returns:
        The monitored metric, for Hydra sweepers; None without a hold-out.
    """
    folder, overrides = entry.run_folder(), entry.overrides()
    entry.check(cfg, schema.Train)

    import pytorch_lightning as pl  # takes seconds: not imported for --help, nor before options are checked
    from hydra.utils import instantiate

    from cnn_mnist.cli import console, training_output
    from cnn_mnist.data import own_module
    from cnn_mnist.networks import build
    from cnn_mnist.runs import checkpoint, checkpoint_io, run_folder, training_record
    from cnn_mnist.training.callbacks import plotting_failures, throughput

    console.quiet()
    with run_folder.open_run(cfg, folder, overrides, entry.check_recorded, entry.own_classes(cfg, "network")) as run:
        if run.is_finished:
            print(f"{run.folder} has finished its training already\nresults: {run.results}")
            return run.objective
        cfg = run.cfg
        entry.check_device(cfg)
        data = run.on(own_module.make(cfg.data, cfg.seed).ready())
        pl.seed_everything(cfg.seed, verbose=False)
        model = instantiate(
            cfg.model, network=cfg.network, num_classes=data.num_classes, _recursive_=False, _convert_="all"
        )
        build.check(model.network, data.num_classes)
        entry.check_batches(cfg, data.batch_size, len(data.train), is_normalised=build.is_normalised(model.network))
        training_output.show_architecture(model.network)

        clock, pictures = throughput.Throughput(), plotting_failures.PlottingFailures(instantiate(cfg.callbacks))
        writers = checkpoint_io.writers(run.folder, data.val_name, cfg.monitor)
        bar = [training_output.Bar()] if console.has_terminal() else []
        trainer = instantiate(
            cfg.trainer,
            callbacks=[clock, *pictures.callbacks, training_output.EpochLine(), *bar, *writers],
            logger=[instantiate(logger, save_dir=str(run.folder)) for logger in cfg.logger.values()],
            plugins=[checkpoint_io.CheckpointFiles()],
            default_root_dir=run.folder,
            enable_progress_bar=bool(bar),
            _convert_="all",
        )
        run.begin(model)
        signals.folder = run.folder
        trainer.fit(model, data, ckpt_path=run.checkpoint, weights_only=True)
        if chosen := checkpoint_io.chosen(writers):  # its weights, which ema has averaged, are what analyze.py reads
            model.load_state_dict(checkpoint.read(chosen)["state_dict"])
        trainer.test(model, data, verbose=False)
        found = training_record.of_training(cfg, data, model, trainer, clock.timing(), chosen)
        training_record.fill_hparams(trainer, cfg, found)
        path = run.end(found)
        training_output.show_outcome(found, trainer)
        print(f"results: {path}")
        pictures.check()
        return run.objective


if __name__ == "__main__":
    entry.run(main, __file__, jobs.do_job)
    signals.done()
