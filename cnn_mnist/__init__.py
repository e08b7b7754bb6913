"""A laboratory for one small convolutional network: train it, take it apart, attack it, defend it."""
