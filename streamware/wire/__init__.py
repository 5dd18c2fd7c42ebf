"""Bytes in, values out: the wire formats that Streamware reads and writes.

Nothing here imports asyncio, reads a clock, does I/O or logs. What comes from a client or an app is taken as it is:
a value that does not parse is None or empty, never an exception, and costs time linear in its length at most.
"""
