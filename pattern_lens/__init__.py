"""Record what a transformer computes, in one HDF5 file, and look at it as labelled xarray."""

__version__ = "1.0.0a1"
