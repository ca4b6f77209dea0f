"""``python -m mainspring.cli``: the command line, for processes that start another."""

from mainspring.cli import main

if __name__ == "__main__":
    main()
