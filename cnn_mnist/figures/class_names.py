"""The names and colours of classes in figures. As with matplotlib's styles, one choice holds for all figures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from matplotlib import rc_context
from matplotlib.colors import hsv_to_rgb, to_rgb

LONGEST = 9  # letters; a tile is no wider
# Ten hues that colour-blind readers tell apart (Tol's muted set and black); the class is written in as well.
HUES = ["#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#222222"]
_names: ContextVar[Sequence[str]] = ContextVar("names of classes", default=())


@contextmanager
def class_names(names: Sequence[str]) -> Iterator[None]:
    """Names of the classes for the figures drawn inside the block."""
    before = _names.set(tuple(names))
    try:
        with rc_context({"text.parse_math": False}):  # a $ in a name is a dollar
            yield
    finally:
        _names.reset(before)


def name(label: int) -> str:
    """The name of a class, shortened to `LONGEST` letters; its number where there are no names."""
    names = _names.get()
    own = names[label] if 0 <= label < len(names) else str(label)
    return own if len(own) <= LONGEST else f"{own[: LONGEST - 1]}\u2026"


def colour(label: int) -> tuple[float, float, float]:
    """The colour of a class as RGB in [0, 1]; beyond ten classes they differ less."""
    if label < len(HUES):
        return to_rgb(HUES[label])
    red, green, blue = hsv_to_rgb((label * 0.618 % 1, 0.6, 0.9 if label % 2 else 0.6)).tolist()
    return red, green, blue
