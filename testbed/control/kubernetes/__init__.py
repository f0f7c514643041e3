"""The controllers of the API server's objects: pods wanted, where they go, which nodes live, who takes calls."""
