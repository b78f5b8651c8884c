"""Tables are called after this project, and what an ended search left running is interrupted."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TABLES = ("studies", "trials", "measurements", "fronts", "knowledge")
INDICES = {"candidate": "candidate_id", "state": "state", "revision": "revision"}


def upgrade() -> None:
    """Trials of a study that is said to be running stay so: whoever resumes it counts that it died with them."""
    for name, column in INDICES.items():
        op.drop_index(f"ix_trials_{name}", "trials")
        op.create_index(f"ix_vittle_trials_{name}", "trials", ["study_id", column])
    for table in TABLES:
        op.rename_table(table, f"vittle_{table}")
    studies, trials = (sa.table(f"vittle_{name}", sa.column("id"), sa.column("state")) for name in ("studies", "trials"))
    of_study: sa.ColumnClause[int] = sa.column("study_id")
    ended = sa.select(studies.c.id).where(studies.c.state != "running")
    op.execute(trials.update().where(trials.c.state == "running", of_study.in_(ended)).values(state="interrupted"))
