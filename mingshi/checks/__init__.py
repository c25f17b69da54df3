"""Checks: examples or their tokens in, findings out. They look and never change anything."""
