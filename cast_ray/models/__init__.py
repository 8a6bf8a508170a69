"""The networks: single-device PyTorch that knows nothing of Ray, DeepSpeed or files."""
