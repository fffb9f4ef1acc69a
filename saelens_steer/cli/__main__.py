"""`python -m saelens_steer.cli`."""

from saelens_steer.cli import main

main()
