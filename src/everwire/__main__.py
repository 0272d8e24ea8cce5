"""``python -m everwire`` is the command ``everwire``."""

from .cli import main

main()
