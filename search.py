"""Search for better options: training runs, each chosen in the light of those before. `python search.py --help`."""

from cnn_mnist.cli import signals

if __name__ == "__main__":
    signals.listen()

import argparse
import importlib.util
from typing import Any

from cnn_mnist.cli import entry

EXAMPLES = """\
every other word is an option of train.py: one with an interval or a choice is searched, the others are fixed

  python search.py experiment=tuned                             learning rate, distortion, smoothing and weight decay
  python search.py --trials 30 'model.lr=tag(log,interval(1e-4,1e-1))' 'model.batchnorm=choice(true,false)'
  python search.py --folder multirun/search-DATE --trials 40    ten more of a search that had thirty
  python search.py --metric val/robust_acc experiment=robust    by another metric of the hold-out; the lowest, of a loss

Runs are compared by val/acc, or the --metric, on 5,000 training images held out (data.val_size), never by the test
set."""


def main() -> None:
    """Search, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="options of train.py, fixed or to be searched")
    parser.add_argument(
        "--trials", type=int, default=20, help="runs in all, those of an earlier call included (default: 20)"
    )
    parser.add_argument(
        "--folder", help="folder of the search (default: multirun/search-DATE); a search that is there is continued"
    )
    parser.add_argument("--metric", help="metric of the hold-out by which runs are compared (default: val/acc)")
    parser.add_argument("--config-dir", help="a configuration folder of your own, as train.py takes it")
    parser.add_argument("--seed", type=int, default=0, help="random seed of what is tried (default: 0)")
    parser.error = entry.refuse  # type: ignore[method-assign]
    asked = parser.parse_intermixed_args()

    if importlib.util.find_spec("optuna") is None:
        raise ValueError("a search needs optuna: pip install 'cnn-mnist[search]'")
    from cnn_mnist.sweeps.search import search

    def write_page(*about: Any) -> None:
        # imports torch: not before there is a page to write
        from cnn_mnist.report.sections.sweeps import search as section

        section.write_page(*about)

    search(
        asked.options,
        num_trials=asked.trials,
        folder=asked.folder,
        seed=asked.seed,
        metric=asked.metric,
        config_dir=asked.config_dir,
        write_page=write_page,
    )


if __name__ == "__main__":
    entry.run_without_hydra(main)
    signals.done()
