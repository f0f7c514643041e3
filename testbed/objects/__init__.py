"""The nouns of the emulated cluster that all of testbed shares: frozen values under the names that Kubernetes and Istio
give them.

What is declared has a kind (its class), a name, a namespace (nodes have none) and labels; the rest is made from it.
Times are seconds, durations carry `_s`. Nothing here decides anything.
"""
