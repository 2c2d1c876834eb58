"""`python -m targetwise`, where the command is not on the PATH."""

from targetwise.cli import main

main()
