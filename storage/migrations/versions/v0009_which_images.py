"""Which images a study is judged on."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Nobody wrote it down before."""
    op.add_column("vittle_studies", sa.Column("images", sa.JSON))
