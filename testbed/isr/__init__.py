"""In-sync replicas: Kafka's replication as a state machine without I/O, clock or randomness of its own.

A `broker.Broker` is one replica of a store: its share of each partition (`replica.Replica`), and its part in the Raft
group of all brokers (`testbed.consensus`) that agrees on who leads, in which epoch, and who is in sync (`metadata`);
whoever leads that group is the `controller`. As in Kafka since 3.3, with brokers that are controllers as well (KRaft,
KIP-500; `process.roles=broker,controller`).

Terms are Kafka's, but an index counts from 1: an entry's index is its offset + 1, so that "up to index n" is Kafka's
"end offset n". Sources are Kafka's KIPs (cwiki.apache.org/confluence/display/KAFKA/KIP-...), its documentation
(kafka.apache.org/documentation) and its classes, named where a rule is.
"""
