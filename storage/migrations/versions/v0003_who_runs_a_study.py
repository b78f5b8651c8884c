"""Whose a study is, and which process runs it now."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Earlier studies belong to nobody, and nobody runs them."""
    op.add_column("studies", sa.Column("owner", sa.String(100)))
    op.add_column("studies", sa.Column("holder", sa.String(400)))
    op.add_column("studies", sa.Column("heartbeat", sa.DateTime(timezone=True)))
