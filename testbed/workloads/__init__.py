"""Programs that run in containers, without Ray."""
