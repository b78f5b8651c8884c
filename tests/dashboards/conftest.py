"""The browser in which pages are tested."""

from browsing import browser, chromium, page

__all__ = ["browser", "chromium", "page"]
