"""Build the shipped tiny model, its prompt sets and its corpus."""
