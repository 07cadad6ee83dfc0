"""`python -m phosphene`."""

from phosphene.cli import main

main()
