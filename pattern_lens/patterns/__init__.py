"""A file as labelled lazy xarray."""
