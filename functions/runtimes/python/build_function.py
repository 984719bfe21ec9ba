"""Completes a function's folder while its image is built: `python3 -I /opt/invoker/build_function.py /code`.

Installs what the folder's `requirements.txt` names, from the wheels in its folder `wheels` when it has one and else
from pip's index, into /opt/invoker/packages: an environment that is first on the image's PATH, so the runtime starts
with it. Then the wheels are removed, and the code is compiled and made readable for the user that runs it.
"""

import compileall
import glob
import os
import py_compile
import shutil
import subprocess
import sys
import venv

PACKAGES = "/opt/invoker/packages"


def main(folder: str, packages: str = PACKAGES) -> int:
    """Complete the folder; returns the exit code."""
    os.makedirs(packages, exist_ok=True)
    if os.path.isfile(os.path.join(folder, "requirements.txt")) and (code := install(folder, packages)) != 0:
        return code
    shutil.rmtree(os.path.join(folder, "wheels"), ignore_errors=True)
    finish(folder)
    return 0


def install(folder: str, packages: str) -> int:
    """Make the environment; returns pip's exit code."""
    wheels = os.path.join(folder, "wheels")
    pip = pip_command(wheels)
    if pip is None:
        print("the base has no pip; put pip's own wheel into wheels/, or build on a base with pip", file=sys.stderr)
        return 2
    venv.EnvBuilder(with_pip=False, symlinks=True, clear=True).create(packages)
    source = ["--no-index", "--find-links", wheels] if os.path.isdir(wheels) else []
    options = ["--disable-pip-version-check", "--no-cache-dir", "--no-input", "--python", f"{packages}/bin/python3"]
    requirements = os.path.join(folder, "requirements.txt")
    return subprocess.run([*pip, *options, "install", *source, "-r", requirements], check=False).returncode


def pip_command(wheels: str) -> "list[str] | None":
    """How pip is started: its wheel among the others, which runs without being installed, else the base's own."""
    own = sorted(glob.glob(os.path.join(wheels, "pip-*.whl")))
    if own:
        return [sys.executable, "-I", f"{own[-1]}/pip"]
    probe = subprocess.run([sys.executable, "-I", "-c", "import pip"], capture_output=True, check=False)
    return [sys.executable, "-I", "-m", "pip"] if probe.returncode == 0 else None


def finish(folder: str) -> None:
    """Compile the code, which the read-only file system of a pod cannot do, and let everybody read it: a checkout may
    have been made with modes that shut out the user it runs as."""
    # What does not compile is left for the handler's own error, which has file and line.
    compileall.compile_dir(folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    for parent, _, files in os.walk(folder):
        os.chmod(parent, 0o755)
        for path in (os.path.join(parent, name) for name in files):
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o111 else 0o644)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
