"""What a run will need, cost and be limited by, worked out before it is started."""
