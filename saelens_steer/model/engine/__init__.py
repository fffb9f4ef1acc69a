"""Layers from the hook on, as plain matrix products over a tree of shared tokens."""
