"""The VAE: encoders, decoders, and what they are made of."""
