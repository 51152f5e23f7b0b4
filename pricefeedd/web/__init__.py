"""The edge: what pricefeedd serves over HTTP and WebSocket."""
