"""Programs that run in an environment of their own, without this project's dependencies."""
