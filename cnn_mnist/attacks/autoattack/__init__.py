"""The standard ensemble that the field measures robustness with, and the attacks that it consists of."""
