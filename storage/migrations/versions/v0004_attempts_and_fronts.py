"""How often a trial was begun, and what the front was after how many trials."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Earlier ones were begun once, as far as anybody knows, and their fronts are made when they are asked for."""
    op.add_column("trials", sa.Column("attempts", sa.Integer, nullable=False, server_default="1"))
    op.create_index("ix_trials_state", "trials", ["study_id", "state"])
    op.create_table(
        "fronts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, sa.ForeignKey("studies.id", ondelete="CASCADE"), nullable=False),
        sa.Column("since", sa.Integer, nullable=False),
        sa.Column("until", sa.Integer, nullable=False),
        sa.Column("points", sa.JSON, nullable=False),
        sa.Column("best", sa.Integer),
        sa.UniqueConstraint("study_id", "since"),
    )
