"""`python -m vittle`."""

from vittle.cli.commands import main

main()
