"""Shared package of the text, image and toy scripts: data, models, training, metrics."""
