"""Remedies: examples in, examples out, with a record of what was changed. Nothing happens without being asked for."""
