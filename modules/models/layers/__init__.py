"""Layers of both domains' networks."""
