"""The curves of a run as a table, metrics.csv: complete at any moment, and continued when the run is resumed."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from cnn_mnist.runs import files


class CSVLogger(Logger):
    """A row for each time that metrics were logged: `step`, `epoch` and the metrics of that moment.

    Lightning's CSVLogger starts a new file when a run is resumed, and overwrites it in place.

    Args:
        save_dir: Folder of metrics.csv.
        keep_until: Last step of the rows to keep of an existing file; None: keep none.
    """

    def __init__(self, save_dir: str, keep_until: int | None = None) -> None:
        super().__init__()
        self.path = Path(save_dir, "metrics.csv")
        self.rows: list[dict[str, Any]] = []
        if keep_until is not None and self.path.exists():  # the run may have had other loggers
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            try:
                self.rows = [row for row in rows if int(row["step"]) <= keep_until]
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{self.path} is damaged: a row has no step") from error

    @property
    def name(self) -> str:
        """Empty: the folder is the run's own."""
        return ""

    @property
    def version(self) -> str:
        """Empty, like `name`."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        self.rows.append({**metrics, "step": step})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in config.yaml."""

    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        columns = sorted({name for row in self.rows for name in row})
        files.write(self.path, files.as_csv([{name: row.get(name) for name in columns} for row in self.rows]))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file."""
        self.save()
