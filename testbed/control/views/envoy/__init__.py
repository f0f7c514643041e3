"""What an Envoy is told, as plain dicts, and what its log lines mean."""
