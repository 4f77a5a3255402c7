"""Measures: how fast our own is, against its peers and against the kernel itself.

``make bench`` runs ``python -m tests.bench`` inside the lab. ``docs/performance.md`` tells what is
measured and how.
"""
