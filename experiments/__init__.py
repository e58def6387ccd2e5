"""Everything that is launched: thin mains over functions that can be imported."""
