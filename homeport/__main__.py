"""`python -m homeport` is the command `homeport`."""

from homeport.cli.main import main

main()
