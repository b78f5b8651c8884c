"""Which images a study is judged on."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Nobody wrote it down before."""
    op.add_column("studies", sa.Column("images", sa.JSON))
