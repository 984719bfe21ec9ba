"""Puts together what the runtime image adds to its base: run once while the image is built, by the base's own Python.

Compiled code, because the image's file system is read-only when it runs and every start would compile it anew; a name
for the user, because some packages ask for one; modes that let the user read it, whatever the checkout has.
"""

import compileall
import os
import py_compile
import sys

USER_ID = 10001
LINES = {
    "passwd": f"invoker:x:{USER_ID}:{USER_ID}:Invoker:/work:/sbin/nologin\n",
    "group": f"invoker:x:{USER_ID}:\n",
}
FOLDERS = ("work", "code", "etc")


def main(target: str) -> int:
    """Complete the files below `target`; returns the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 -- the base decides which Python runs this
        print(f"the base has Python {sys.version.split()[0]}; the runtime needs 3.11 or newer", file=sys.stderr)
        return 1
    for name in FOLDERS:
        os.makedirs(os.path.join(target, name), exist_ok=True)
    for name, line in LINES.items():
        with open(os.path.join(target, "etc", name), "w") as file:
            file.write(with_line(read(f"/etc/{name}"), line))
    # Never compared with its source again: layers may change the times of files, but not what is in them.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    code = os.path.join(target, "opt")
    done = compileall.compile_dir(code, quiet=1, invalidation_mode=mode, stripdir=target, prependdir="/")
    open_to_all(target)
    return 0 if done else 1


def read(path: str) -> str:
    """The file's text, empty where a base has none."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def with_line(text: str, line: str) -> str:
    """The text with the line, unless its id has a name already."""
    if any(entry.split(":")[2:3] == [str(USER_ID)] for entry in text.splitlines()):
        return text
    return text + ("\n" if text and not text.endswith("\n") else "") + line


def open_to_all(folder: str) -> None:
    for parent, _, files in os.walk(folder):
        os.chmod(parent, 0o755)
        for name in files:
            os.chmod(os.path.join(parent, name), 0o644)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
