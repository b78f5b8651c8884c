"""How often a trial was begun."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Earlier ones were begun once, as far as anybody knows."""
    op.add_column("trials", sa.Column("attempts", sa.Integer, nullable=False, server_default="1"))
