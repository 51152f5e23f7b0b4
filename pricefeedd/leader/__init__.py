"""Which of several daemons dials the venues and publishes."""
