"""Binance for pricefeedd."""
