"""Writes the figures in README.md and docs/ from their records.

    python -m benchmarks.readme          writes them anew; tests/test_readme.py holds that there is nothing to write

A block of a page names a record and holds its text with the keys of that record, as the report's sentences do; what
follows it is the same text with the numbers:

    <!-- figures of docs/results.json
    | `python train.py` | {paper.mean:.2%} |
    -->
    | `python train.py` | 99.00 % |
    <!-- end of figures -->
"""

import json
import re
from pathlib import Path

from cnn_mnist.report.prose import plain
from cnn_mnist.runs import files

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(<!-- figures of (\S+)\n(.*?)-->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)


def written(page: str, root: Path = ROOT) -> str:
    """A page with the figures of its blocks written anew.

    Raises:
        KeyError: A record does not have what a block asks for.
    """

    def block(found: re.Match[str]) -> str:
        opening, record, template, _, closing = found.groups()
        return opening + plain(template, json.loads((root / record).read_text(encoding="utf-8"))) + closing

    return BLOCK.sub(block, page)


def main() -> None:
    """Write every page."""
    for name in PAGES:
        path = ROOT / name
        files.write(path, written(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
