"""The pages, each with its JSON twin."""
