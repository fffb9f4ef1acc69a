"""Scripts that build the shipped model and data, or serve a labeller; not installed."""
