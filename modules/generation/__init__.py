"""Sentences and images from a trained model."""
