"""One self-contained page: every figure inline, every number with its key, nothing fetched and no script."""

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

from cnn_mnist.figures.render import Picture, to_svg
from cnn_mnist.figures.tiles import Tiles, ramp
from cnn_mnist.report import layout, summary
from cnn_mnist.report.prose import lookup, marked, plain
from cnn_mnist.runs import files


def write(folder: Path, record: dict[str, Any], sections: list[layout.Block]) -> Path:
    """Write `report.html` into a folder and return its path.

    Args:
        folder: The folder of the sections' files; links to them are relative.
        record: The content of results.json.
        sections: The sections, in order.
    """

    def value(key: str, spec: str = "") -> Markup:
        """A value of the record, formatted."""
        return marked(f"{{{key}:{spec}}}", record)

    def knows(key: str) -> bool:
        try:
            return lookup(record, key) is not None
        except KeyError:
            return False

    def see(*tags: str, which: slice = slice(None)) -> Markup:
        """Links to the figures of some tags, of all networks or of some; nothing without figures."""
        known = [number for tag in tags for number in numbers.get(tag, [])[which]]
        links = ", ".join(f'<a href="#figure-{number}">{number}</a>' for number in known)
        noun = "Figures" if len(known) > 1 else "Figure"
        return Markup(f' <span class="see">({noun} {links})</span>' if known else "")

    chapters = layout.chapters(sections, record.get("names", ()))
    numbers = layout.numbers(chapters)
    html = (
        templates()
        .get_template("page.html")
        .render(
            record=record,
            title=summary.title(record),
            abstract=summary.abstract(record),
            conclusion=summary.conclusion(record),
            sections=sections,
            chapters=chapters,
            num_tables=layout.num_tables(chapters),
            words=layout.words(),
            value=value,
            knows=knows,
            see=see,
            marked=marked,
            plain=plain,
            is_tiles=lambda picture: isinstance(picture, Tiles),
            svg=_svg,
            inline=inline,
            ramp=lambda colours: inline(ramp(colours)),
            hex=to_hex,
            link=lambda path: path.relative_to(folder).as_posix(),
        )
    )
    path = folder / "report.html"
    files.write(path, html)
    return path


@cache
def templates() -> Environment:
    """The templates of HTML pages; what is put into them is escaped."""
    return Environment(
        loader=PackageLoader("cnn_mnist.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def inline(pixels: NDArray[np.uint8]) -> str:
    """RGB (H, W, 3) as a data URL: lossless WebP, half the size of a PNG."""
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "WEBP", lossless=True, method=2, quality=30)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()


def _svg(picture: Picture) -> str:
    """A chart as a data URL."""
    assert not isinstance(picture, Tiles)
    return "data:image/svg+xml;base64," + base64.b64encode(to_svg(picture)).decode()
