"""Model and prompts to activations in a file."""
