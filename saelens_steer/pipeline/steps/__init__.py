"""One module per step: what it computes and the files it writes."""
