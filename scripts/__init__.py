"""What builds the package's data and serves its labels; not installed with it."""
