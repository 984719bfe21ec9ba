"""Where the init container of `input.as: file` begins: `python -I -u …/invoker/runtime/fetch_input.py`.

As `__main__.py` it takes the name `invoker_runtime` when it is started as a file, so that any Python >= 3.11 will do
and nothing but the standard library is needed.
"""

import sys

if __name__ == "__main__":
    if __package__:
        from .input_file import main
    else:
        folder = __file__.rpartition("/")[0] or "."
        package = type(sys)("invoker_runtime")
        package.__path__ = [folder]
        sys.modules["invoker_runtime"] = package
        from invoker_runtime.input_file import main  # type: ignore[import-not-found,no-redef]  # made the line above
    sys.exit(main())
