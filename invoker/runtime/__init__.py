"""The Python runtime: runs one handler once, inside a pod or a local process.

Standard library only, and little of it: what a function's start costs is mostly what is imported here, so `json`,
`socket`, `typing`, `signal`, `traceback` and `asyncio` (5 to 50 ms each) are loaded by those runs only that need them.

The modules import each other relatively and never through `invoker`: an engine starts the file `ENTRY`, with any
Python >= 3.11, and nothing but the function's own code and packages is on its path.
"""

ENTRY = __file__.replace("__init__.py", "__main__.py")
"""The file to start: `python -I -u ENTRY`."""
