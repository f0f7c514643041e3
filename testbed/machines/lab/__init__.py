"""Machines out of nothing: network namespaces with addresses, clocks, homes and sshd of their own, on one Linux."""
