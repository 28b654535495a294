"""Batches of activations to HDF5 and back: the file, its writer and its readers."""
