"""Complete configurations of runs, one file per dataset."""
