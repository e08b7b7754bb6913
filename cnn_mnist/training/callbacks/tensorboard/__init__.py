"""Callbacks that write what TensorBoard alone shows: charts, texts, the graph, histograms, curves, embeddings."""
