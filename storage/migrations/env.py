"""How Alembic runs here: on the connection and inside the transaction that `vittle.storage.schema` has opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
