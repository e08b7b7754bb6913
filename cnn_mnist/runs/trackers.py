"""Loggers for experiment trackers: MLflow, Weights & Biases and Trackio. Each is an extra.

A tracker knows a run by its `run_name`, which config.yaml keeps, so a resumed run continues under the same name. What
the interrupted part logged after the checkpoint is logged again, at the same steps.
"""

import hashlib
import importlib.util
import io
import logging
from argparse import Namespace
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from lightning_fabric.loggers.logger import rank_zero_experiment
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger, MLFlowLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

Pixels = list[NDArray[np.uint8]]  # pictures (H, W, 3)


def _check(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"logger={package} needs the package {package}: pip install 'cnn-mnist[{package}]'")


class MLFlow(MLFlowLogger):
    """Logs metrics, options and pictures to MLflow.

    Args:
        save_dir: The run's folder.
        run_name: The name of the run.
        experiment_name: The experiment that it belongs to.
        tracking_uri: A database, or the address of a server.

    Raises:
        ValueError: MLflow is not installed.
    """

    def __init__(
        self,
        save_dir: str,
        run_name: str,
        experiment_name: str = "cnn_mnist",
        tracking_uri: str = "sqlite:///mlflow.db",
    ) -> None:
        _check("mlflow")
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        known: list[Any] = []
        if not rank_zero_only.rank:  # type: ignore[attr-defined]
            client = MlflowClient(tracking_uri)
            if experiment := client.get_experiment_by_name(experiment_name):
                known = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{run_name}'")
        super().__init__(experiment_name, run_name, tracking_uri, run_id=known[0].info.run_id if known else None)

    @rank_zero_only
    def log_image(self, key: str, images: Pixels, step: int) -> None:
        """Add a picture at a step."""
        self.experiment.log_image(self.run_id, images[0], key=key, step=step)


class Wandb(WandbLogger):
    """Logs metrics, options and pictures to Weights & Biases; offline into the run's folder, for `wandb sync`.

    Args:
        save_dir: The run's folder.
        run_name: The name of the run.
        project: The project that it belongs to.
        offline: Whether nothing is sent to the server.

    Raises:
        ValueError: wandb is not installed.
    """

    def __init__(self, save_dir: str, run_name: str, project: str = "cnn_mnist", offline: bool = True) -> None:
        _check("wandb")
        import wandb

        if wandb.run is not None:  # of the job before, in a sweep
            wandb.finish()
        super().__init__(
            run_name,
            save_dir,
            id=hashlib.sha256(run_name.encode()).hexdigest()[:16],  # of the letters and the length that it takes
            project=project,
            offline=offline,
            settings=wandb.Settings(silent=True),
        )
        self._wandb_init.pop("anonymous", None)  # which wandb no longer has


class Trackio(Logger):
    """Logs metrics, options and pictures to Trackio, in its own folder (`TRACKIO_DIR`).

    Args:
        save_dir: The run's folder.
        run_name: The name of the run.
        project: The project that it belongs to.

    Raises:
        ValueError: Trackio is not installed.
    """

    def __init__(self, save_dir: str, run_name: str, project: str = "cnn_mnist") -> None:
        _check("trackio")
        super().__init__()
        self.run_name, self.project = run_name, project
        self._run: Any = None
        self._options: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The project."""
        return self.project

    @property
    def version(self) -> str:
        """The name of the run."""
        return self.run_name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, started or resumed at its first use."""
        if self._run is None:
            import trackio

            with redirect_stdout(io.StringIO()):
                self._run = trackio.init(
                    self.project,
                    self.run_name,
                    resume="allow",
                    config=self._options,
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add the options; Trackio stores them with the first metrics."""
        self._options = dict(params) if isinstance(params, dict) else vars(params)
        self.experiment.config.update(self._options)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add metrics at a step."""
        self.experiment.log(metrics, step=step)

    @rank_zero_only
    def log_image(self, key: str, images: Pixels, step: int) -> None:
        """Add a picture at a step."""
        import trackio

        self.experiment.log({key: trackio.Image(images[0])}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left; logging more resumes the run."""
        if self._run is not None:
            import trackio

            with redirect_stdout(io.StringIO()):
                trackio.finish()  # type: ignore[no-untyped-call]
            self._run = None
