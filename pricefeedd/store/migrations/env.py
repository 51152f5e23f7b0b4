"""Runs the migrations over the connection that it is handed; alembic loads this file by its path."""

from alembic import context

from pricefeedd.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
