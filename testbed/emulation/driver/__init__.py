"""What drives a run from the outside: Ray, machines, the cluster, faults on time, records."""
