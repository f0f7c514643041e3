"""One replica of a store as a process: Raft's replica with a disk, peers and clients. Keys, values, one log."""
