"""`python -m vittle`."""

from vittle.cli import main

main()
