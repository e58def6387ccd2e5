"""Plots: functions that return a matplotlib Figure."""
