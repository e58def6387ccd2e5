"""A run's model for other systems: one file a format."""
