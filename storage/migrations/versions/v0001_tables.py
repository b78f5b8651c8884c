"""Studies, trials, measurements and what is known of backbones.

Databases from before there were versions have some of these tables or all; what is missing is made.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make what is missing."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "studies" not in there:
        op.create_table(
            "studies",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.String(200), nullable=False),
            sa.Column("state", sa.String(20), nullable=False),
            sa.Column("settings", sa.JSON, nullable=False),
            sa.Column("backbone", sa.JSON, nullable=False),
            sa.Column("created", sa.DateTime(timezone=True), nullable=False),
            sa.UniqueConstraint("name"),
        )
    if "trials" not in there:
        op.create_table(
            "trials",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("study_id", sa.Integer, sa.ForeignKey("studies.id", ondelete="CASCADE"), nullable=False),
            sa.Column("number", sa.Integer, nullable=False),
            sa.Column("state", sa.String(20), nullable=False),
            sa.Column("origin", sa.String(40), nullable=False),
            sa.Column("schedule_id", sa.String(12), nullable=False),
            sa.Column("schedule", sa.JSON, nullable=False),
            sa.Column("parameters", sa.JSON, nullable=False),
            sa.Column("reason", sa.String(500)),
            sa.Column("started", sa.DateTime(timezone=True), nullable=False),
            sa.Column("finished", sa.DateTime(timezone=True)),
            sa.UniqueConstraint("study_id", "number"),
        )
        op.create_index("ix_trials_schedule", "trials", ["study_id", "schedule_id"])
    if "measurements" not in there:
        op.create_table(
            "measurements",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("trial_id", sa.Integer, sa.ForeignKey("trials.id", ondelete="CASCADE"), nullable=False),
            sa.Column("phase", sa.String(20), nullable=False),
            sa.Column("objective", sa.String(40), nullable=False),
            sa.Column("value", sa.Double, nullable=False),
            sa.Column("low", sa.Double, nullable=False),
            sa.Column("high", sa.Double, nullable=False),
            sa.Column("n", sa.Integer, nullable=False),
            sa.Column("protocol", sa.JSON, nullable=False),
            sa.UniqueConstraint("trial_id", "phase", "objective"),
        )
    if "knowledge" not in there:
        op.create_table(
            "knowledge",
            sa.Column("fingerprint", sa.String(12), primary_key=True),
            sa.Column("kind", sa.String(40), primary_key=True),
            sa.Column("document", sa.JSON, nullable=False),
            sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        )
