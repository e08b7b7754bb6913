"""Cells and lines of Markdown tables."""


def percent(value: float | None, digits: int = 2) -> str:
    """A share in per cent; nothing for None."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def line(*cells: object) -> str:
    """A line of a table."""
    return "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"
