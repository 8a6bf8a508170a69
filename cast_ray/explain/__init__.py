"""What a trained model relies on: accuracy on damaged clips, and where its exchanges look."""
