"""Whether somebody asked for a running study to stop, and when."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Nobody asked for it before."""
    op.add_column("studies", sa.Column("stop", sa.DateTime(timezone=True)))
