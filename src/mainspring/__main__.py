"""``python -m mainspring``: the command line, as containers start it."""

from mainspring.cli import main

if __name__ == "__main__":
    main()
