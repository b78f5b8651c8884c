"""What is seen: the web pages with their JSON twins, and tables for the terminal. Starts without torch, ray and timm."""

from vittle.dashboards.app import create_app
from vittle.dashboards.terminal import front_table, studies_table, trials_table

__all__ = ["create_app", "front_table", "studies_table", "trials_table"]
