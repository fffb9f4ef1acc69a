"""Run the layers after a hook as plain matrix products over a tree of shared prompt prefixes."""
