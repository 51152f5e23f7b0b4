"""The steps by which a database becomes what `tables` says; alembic runs them."""
