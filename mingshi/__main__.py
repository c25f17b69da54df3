"""`python -m mingshi` is `mingshi`."""

from mingshi.cli import main

if __name__ == "__main__":
    main()
