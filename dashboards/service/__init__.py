"""The power to launch: what may be asked for, and where it runs."""
