"""The EXAMPLES block of a command's help; the tests find the commands in it and run them."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """An epilogue of command lines, kept line by line."""
    return "EXAMPLES\n\n\b\n" + "\n".join(f"  {line}" for line in lines)
