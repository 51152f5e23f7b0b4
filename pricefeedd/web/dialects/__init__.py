"""Dialects of the systems that pricefeedd replaces: their clients connect unchanged."""
