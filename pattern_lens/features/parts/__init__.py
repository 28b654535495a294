"""Parts of the data of a feature, each a function of arrays."""
