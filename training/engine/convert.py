"""`python -m training.engine.convert ORDER TARGET` carries out an order of `exports`, in a process of its own."""

import logging
import sys
from pathlib import Path

from training.errors import EncoreError
from training.imports import lasting


def main() -> None:
    """Carry out one order; what is wrong goes to the last line of standard error."""
    with lasting():
        from training.engine.openvino_export import carry_out
    logging.getLogger("transformers").setLevel(logging.ERROR)
    order, target = sys.argv[1:]
    try:
        carry_out(order, Path(target))
    except EncoreError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
