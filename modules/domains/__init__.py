"""Text and images: what each brings to the one training loop."""
