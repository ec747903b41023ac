"""`python -m upframe` is `upframe`."""

from upframe.cli import main

if __name__ == "__main__":
    main()
