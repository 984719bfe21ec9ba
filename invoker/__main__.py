"""`python -m invoker` is the command `invoker`."""

from invoker.cli import main

if __name__ == "__main__":
    main()
