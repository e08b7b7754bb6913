"""Results to matplotlib figures; touches no model, and no global state of matplotlib."""
