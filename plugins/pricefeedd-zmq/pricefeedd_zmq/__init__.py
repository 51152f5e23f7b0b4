"""ZeroMQ as a sink, and a proxy."""
