"""What actors supervise: real processes and the protocols spoken with them."""
