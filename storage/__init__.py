"""What is remembered: tables, the store, what leaves it. Starts without torch."""
