"""The paper's claims, each measured at a small scale: examples/claims.py is the command.

In the order of reading: setups (what a run is), nets, pictures, runs (one training, and what it leaves), rows (the
claims, and what is compared), measures (numbers of one seed), verdicts (of several), table and drawn (docs/claims.md).
"""
