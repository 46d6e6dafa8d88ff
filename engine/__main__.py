"""`python -m engine` is `offhook`."""

from engine.cli import main

if __name__ == "__main__":
    main()
