"""The tests mirror the package; `mnist` marks those that need the real files, `slow` the long ones."""
