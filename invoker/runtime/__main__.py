"""Where a function's process begins: `python -I -u …/invoker/runtime/__main__.py`, or `python -m invoker.runtime`.

Started as a file, the runtime calls itself `invoker_runtime`: a function's process must neither import the whole of
`invoker` nor have the controller's packages on its path just because the runtime lies beside them.
"""

import sys

if __package__:
    from .attempt import main
else:
    folder = __file__.rpartition("/")[0] or "."
    if sys.path and sys.path[0] == folder:
        del sys.path[0]  # started without -I: our modules are not for the function to import
    package = type(sys)("invoker_runtime")
    package.__path__ = [folder]
    sys.modules["invoker_runtime"] = package
    from invoker_runtime.attempt import main  # type: ignore[import-not-found,no-redef]  # made two lines above

sys.exit(main())
