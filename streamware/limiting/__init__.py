"""Counters and leases that limits are kept in: in this process's memory, or in a Redis that all workers share."""
