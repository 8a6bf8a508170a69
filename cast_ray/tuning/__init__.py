"""Many runs at once on Ray Tune: searches, the same settings on several datasets, the papers' ablations."""
