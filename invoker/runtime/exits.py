"""The exit codes of a function's process: a contract between the runtime and the engines."""

OK = 0
ERROR = 1
"""The attempt failed; another one may follow (backoffLimit)."""
NO_RETRY = 64
"""The attempt failed, and another one would fail in the same way: engines end the run (podFailurePolicy)."""
TERMINATED = 143
"""Ended by SIGTERM or an interrupt (128 + 15)."""
