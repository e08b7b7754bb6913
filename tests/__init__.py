"""The tests mirror the package; `mnist` marks those that need the real files, `slow` the long ones."""

from cnn_mnist.cli.threads import limit_spinning

limit_spinning()  # before torch is imported
