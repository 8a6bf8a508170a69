"""What runs look like to their reader: one self-contained HTML page, and the same plots as picture files."""
