"""What is seen of a run while it goes on: on a terminal, in a log, and in programs that keep figures of runs."""
