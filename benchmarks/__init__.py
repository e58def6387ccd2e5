"""Side-by-side measurements, each of which prints JSON lines."""
