"""How a trained model leaves the project: one file that holds all of it."""
