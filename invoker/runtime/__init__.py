"""The Python runtime: runs one handler once, inside a pod or a local process.

Standard library only, and little of it: what a function's start costs is mostly what is imported here, so `json`,
`socket`, `typing`, `signal`, `traceback` and `asyncio` (5 to 50 ms each) are loaded by those runs only that need them.

The modules import each other relatively and never through `invoker`: an engine starts the file `ENTRY`, with any
Python >= 3.11, and nothing but the function's own code and packages is on its path.
"""

ENTRY = __file__.replace("__init__.py", "__main__.py")
"""The file to start: `python -I -u ENTRY`."""

FETCH_ENTRY = __file__.replace("__init__.py", "fetch_input.py")
"""The file that fetches an input into `INVOKER_INPUT_FILE`, and ends: `python -I -u FETCH_ENTRY`."""

IMAGE_FOLDER = "/opt/invoker/runtime"
"""Where the runtime lies in the images of functions/runtimes/python and all that are built on them."""
IMAGE_COMMAND = ("python3", "-I", "-u", f"{IMAGE_FOLDER}/__main__.py")
"""The entry point of those images; the interpreter is found on the image's PATH."""
IMAGE_FETCH_COMMAND = ("python3", "-I", "-u", f"{IMAGE_FOLDER}/fetch_input.py")
"""The command of an init container that fetches the input, in the same images."""
