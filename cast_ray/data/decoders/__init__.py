"""Which libraries turn an encoded clip into frames: one module for each, all giving a `Source`."""
