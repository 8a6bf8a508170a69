"""Train, tune and evaluate cross-attention video recognisers at scale on Ray."""
