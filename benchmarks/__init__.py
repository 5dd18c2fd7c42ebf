"""What Streamware costs, measured beside the bare app and the nearest peer. ``python -m benchmarks`` or ``make bench``.

Method: one server process for each variant, all up at once, visited round-robin, so that a machine that changes its
speed changes it for all. What counts is CPU time of the server process, never the wall clock. Each figure is a ratio
between two variants of the same round; the median over the rounds is what is reported, with the least and the greatest.
The client counts what arrives: a round in which anything is lost fails.
"""
