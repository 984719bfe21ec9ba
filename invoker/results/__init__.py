"""Where request records and results are read: NATS, the truth; later others, filled from it."""
