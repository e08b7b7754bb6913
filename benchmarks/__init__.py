"""Speed beside the peers, and the results of many runs; threads wait as in this project's commands."""

from cnn_mnist.cli.threads import limit_spinning

limit_spinning()
