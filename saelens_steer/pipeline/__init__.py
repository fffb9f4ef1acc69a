"""From a config to a run folder: the steps, what they depend on, and what they write."""
