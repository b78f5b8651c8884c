"""A study has a kind, and its trials have candidates, which are schedules where the kind is inference."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Earlier studies are all of one kind."""
    op.add_column("studies", sa.Column("kind", sa.String(40), nullable=False, server_default="inference"))
    op.drop_index("ix_trials_schedule", "trials")
    op.alter_column("trials", "schedule", new_column_name="candidate")
    op.alter_column("trials", "schedule_id", new_column_name="candidate_id")
    op.create_index("ix_trials_candidate", "trials", ["study_id", "candidate_id"])
