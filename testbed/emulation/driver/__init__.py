"""What drives a session from the outside: Ray, machines, the cluster, a scenario's script on it, records."""
