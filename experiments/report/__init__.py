"""A run's report: one page of HTML that needs nothing but itself."""
