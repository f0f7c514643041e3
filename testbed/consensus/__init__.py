"""Consensus: Raft as a state machine without I/O, clock or randomness of its own. Section numbers in this package are
those of D. Ongaro, "Consensus: Bridging Theory and Practice", 2014.

`replica.Replica` takes messages, the time and requests, and returns what is to be done (`outputs`). It keeps back every
message that depends on a write until it is told that the write is durable.
"""
