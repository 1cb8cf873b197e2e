"""`python -m tracerouted` is the command `tracerouted`."""

from .cli import main

if __name__ == "__main__":
    main()
