"""Import and export models of other systems: one file per format, and what formats share."""
