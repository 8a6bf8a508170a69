"""From annotation files and videos to batches of uint8 frames."""
