"""What is seen: web pages with JSON twins (`app`), tables for the terminal (`terminal`). Starts without torch, ray and timm.

Nothing is imported here, so that a command line which prints tables does not load the web framework.
"""

__all__: list[str] = []
