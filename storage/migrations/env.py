"""How Alembic runs here: on the connection and inside the transaction that `vittle.storage.schema` has opened."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["versions"], render_as_batch=True)
context.run_migrations()
