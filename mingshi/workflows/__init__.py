"""What loops around runs, or makes what they train on: preference pairs."""
