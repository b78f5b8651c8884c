"""Which candidates are worth having, and whether more are to be expected. Starts without torch."""
