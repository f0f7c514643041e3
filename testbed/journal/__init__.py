"""The disks of whoever keeps a log that survives: of a store's replicas, and of masters."""
