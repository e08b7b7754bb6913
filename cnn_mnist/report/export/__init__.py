"""The network for other programs: as a file, and as a page to draw on."""
