"""Figures of tiles: what is drawn where, at whole multiples of a pixel, within the width that is asked for."""

import numpy as np
import pytest

from cnn_mnist.figures import tiles
from cnn_mnist.figures.canvas import Colours
from cnn_mnist.figures.tiles import CARD, WIDE, Tile, Tiles, each

RED = np.full((28, 28, 3), (200, 0, 0), np.uint8)


def places(drawn: np.ndarray) -> np.ndarray:
    return (drawn == (200, 0, 0)).all(-1)


@pytest.mark.parametrize(("width", "columns"), [(WIDE, 10), (CARD, 4)])
def test_as_many_tiles_stand_in_a_row_as_fit(width: int, columns: int) -> None:
    figure = Tiles(each([Tile(RED, "as 1")] * 20), "title")
    drawn = tiles.draw(figure, width)
    assert drawn.shape[1] <= width
    found = places(drawn)
    assert found.sum() == 20 * 84 * 84
    starts = np.flatnonzero(np.diff(found[found.any(1).argmax()].astype(int)) == 1)
    assert len(starts) == columns


def test_pixels_keep_their_edges() -> None:
    tile = np.zeros((28, 28, 3), np.uint8)
    tile[::2] = (200, 0, 0)
    drawn = tiles.draw(Tiles([[Tile(tile, scale=4)]], ""))
    assert places(drawn).sum() == 14 * 28 * 16
    heights = np.diff(np.flatnonzero(np.diff(places(drawn)[:, 60].astype(int))))
    assert set(heights.tolist()) == {4}


def test_a_group_stays_together_and_may_stand_in_a_column() -> None:
    groups = [[Tile(RED, "4"), Tile(RED, "+"), Tile(RED, "= 9")]] * 5
    stacked = places(tiles.draw(Tiles(groups, "", is_stacked=True), CARD))
    side_by_side = places(tiles.draw(Tiles(groups, "", is_row=True), CARD))
    assert stacked.any(0).sum() == 4 * 84
    assert side_by_side.any(1).sum() == 5 * 84


def test_what_is_too_wide_is_drawn_at_its_narrow_scale() -> None:
    wide = np.full((10, 200, 3), (200, 0, 0), np.uint8)
    assert places(tiles.draw(Tiles([[Tile(wide, scale=4, narrow=1)]], ""), CARD)).sum() == 2000
    assert places(tiles.draw(Tiles([[Tile(wide, scale=4, narrow=1)]], ""), WIDE)).sum() == 16 * 2000


def test_a_bar_a_legend_headings_and_a_note_take_room() -> None:
    plain = tiles.draw(Tiles([[Tile(RED)]], "title")).shape[0]
    for more in (
        {"bar": Colours("viridis", 0, 1, "p")},
        {"legend": [("7", (1.0, 0.0, 0.0))]},
        {"headings": ["noise for 3"]},
        {"note": " ".join(["word"] * 60)},
    ):
        assert tiles.draw(Tiles([[Tile(RED)]], "title", **more)).shape[0] > plain + 8  # type: ignore[arg-type]


def test_a_text_of_tall_letters_is_wrapped_and_a_long_word_is_kept() -> None:
    drawn = tiles.draw(Tiles([[Tile(RED, "one two three four five six seven")]], ""))
    dark = (drawn < 100).all(-1)[94:]  # below the tile
    assert len(np.flatnonzero(np.diff(dark.any(1).astype(int)) == 1)) >= 3
    assert not dark[:, 100:].any()
