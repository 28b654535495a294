"""Features of sparse autoencoders: what they are, where they fire, and what that does."""
