"""Why a study ended is kept with it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Nobody wrote down why earlier ones did."""
    op.add_column("studies", sa.Column("ended", sa.String(500)))
