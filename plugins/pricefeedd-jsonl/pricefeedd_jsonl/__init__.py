"""A record of what was served, one JSON text per line."""
