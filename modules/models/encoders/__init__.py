"""Approximate posteriors q(z|x)."""
