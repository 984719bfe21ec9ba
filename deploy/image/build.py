"""Puts together what Invoker's image adds to its base: run once while the image is built, by the base's own Python.

An environment in /opt/invoker with what requirements/image.txt pins and Invoker itself, compiled; then the tools that
were needed to install it are taken out again. With wheels beside this file, nothing is fetched from anywhere.
"""

import compileall
import datetime
import glob
import os
import py_compile
import re
import subprocess
import sys
import venv

ENVIRONMENT = "/opt/invoker"
IMAGE = "/image"
USER_ID = 10001
LINES = {
    "passwd": f"invoker:x:{USER_ID}:{USER_ID}:Invoker:/var/lib/invoker:/sbin/nologin\n",
    "group": f"invoker:x:{USER_ID}:\n",
}
BUILT_HERE = "nkeys"
"""The only package without a wheel of its own."""
GENERATED = re.compile(r"/kubernetes/(aio/)?client/(api|models)/")
"""Half of the image when compiled, and loaded one by one by who asks for them: Invoker never does."""


def main(folder: str) -> int:
    """Make /opt/invoker and what goes beside it from the build's folder; returns the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 -- the base decides which Python runs this
        print(f"the base has Python {sys.version.split()[0]}; Invoker needs 3.11 or newer", file=sys.stderr)
        return 1
    wheels = os.path.join(folder, "image", "wheels")
    pip = pip_command(wheels)
    if pip is None:
        print(
            "the base has no pip; put pip's own wheel into deploy/image/wheels, or take a base with pip",
            file=sys.stderr,
        )
        return 2
    venv.EnvBuilder(with_pip=False, symlinks=True, clear=True).create(ENVIRONMENT)
    from_wheels = ["--no-index", "--find-links", wheels] if glob.glob(os.path.join(wheels, "*.whl")) else []
    install = ["install", "--no-compile", "--no-deps", "--no-build-isolation", *from_wheels]
    tools, packages = (os.path.join(folder, name) for name in ("image-build.txt", "image.txt"))
    binary = ["--only-binary", ":all:", "--no-binary", BUILT_HERE]
    steps = [
        [*install, "--require-hashes", "--only-binary", ":all:", "-r", tools],
        [*install, "--require-hashes", *binary, "-r", packages],
        [*install, os.path.join(folder, "source")],
        ["uninstall", "--yes", *sorted(pinned(tools) - pinned(packages))],
    ]
    options = ["--disable-pip-version-check", "--no-cache-dir", "--no-input", "--quiet"]
    for step in steps:
        command = [*pip, "--python", f"{ENVIRONMENT}/bin/python3", *options, step[0], "--root-user-action", "ignore"]
        code = subprocess.run([*command, *step[1:]], check=False).returncode
        if code != 0:
            return code
    finish(folder)
    return 0


def pip_command(wheels: str) -> "list[str] | None":
    """How pip is started: its wheel among the others, which runs without being installed, else the base's own."""
    own = sorted(glob.glob(os.path.join(wheels, "pip-*.whl")))
    if own:
        return [sys.executable, "-I", f"{own[-1]}/pip"]
    probe = subprocess.run([sys.executable, "-I", "-c", "import pip"], capture_output=True, check=False)
    return [sys.executable, "-I", "-m", "pip"] if probe.returncode == 0 else None


def pinned(requirements: str) -> "set[str]":
    """The names that a locked file of requirements pins."""
    with open(requirements) as file:
        return {line.split("==")[0] for line in file if re.match(r"[A-Za-z0-9]", line) and "==" in line}


def finish(folder: str) -> None:
    """Compile, name the user, and give every file a mode and a time that no checkout and no clock has a say in."""
    for name in ("pip", "pip3", "activate", "activate.csh", "activate.fish", "Activate.ps1"):
        if os.path.exists(path := os.path.join(ENVIRONMENT, "bin", name)):
            os.unlink(path)
    # Never compared with its source again: layers may change the times of files, but not what is in them. All of it
    # anew: what the tools imported has been compiled already, in the way that looks at times.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(ENVIRONMENT, quiet=2, force=True, invalidation_mode=mode, rx=GENERATED)
    sys.path.insert(0, folder)
    from prepare import read, with_line  # beside the files of requirements

    os.makedirs(os.path.join(IMAGE, "etc"))
    os.makedirs(os.path.join(IMAGE, "state"))
    for name, line in LINES.items():
        with open(os.path.join(IMAGE, "etc", name), "w") as file:
            file.write(with_line(read(f"/etc/{name}"), line))
    for place in (ENVIRONMENT, IMAGE):
        settle(place, created())


def created() -> float:
    """The instant of the build argument CREATED, the epoch without one."""
    text = os.environ.get("CREATED") or "1970-01-01T00:00:00Z"  # noqa: TID251 -- a build argument, no setting
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def settle(place: str, instant: float) -> None:
    for parent, folders, files in os.walk(place, topdown=False):
        for path in (os.path.join(parent, name) for name in (*files, *folders)):
            if not os.path.islink(path):
                is_open = os.path.isdir(path) or os.stat(path).st_mode & 0o111
                os.chmod(path, 0o755 if is_open else 0o644)
            os.utime(path, (instant, instant), follow_symlinks=False)
    os.chmod(place, 0o755)
    os.utime(place, (instant, instant))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
