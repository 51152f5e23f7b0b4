"""`python -m pricefeedd.cli` is `pricefeedd`."""

from pricefeedd.cli import main

main()
