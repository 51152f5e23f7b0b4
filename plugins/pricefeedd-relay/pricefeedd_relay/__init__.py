"""Another pricefeedd as a source."""
