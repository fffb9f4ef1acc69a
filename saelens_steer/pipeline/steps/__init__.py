"""One module a step: what it computes and the files it writes."""
