"""What a careful person would want to know of the text before a run."""
