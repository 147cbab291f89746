"""`python -m subnet_search` and `accelerate launch -m subnet_search`."""

from subnet_search.cli import main

main()
