"""Data inspection: duplicates, scripts, languages, lengths, vocabulary coverage."""
