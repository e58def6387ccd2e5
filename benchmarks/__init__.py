"""Side-by-side measurements that print JSON lines."""
