"""Every version that the tables have had, one file for each step from one to the next. `storage/schema.py` runs them."""
