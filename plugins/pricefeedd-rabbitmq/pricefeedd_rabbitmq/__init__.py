"""RabbitMQ as a sink."""
