"""Fine-tune a model: `accelerate launch -m training.train --config configs/classify/minilm.yaml ...`.

The same module runs in one process as `python -m training.train`. Killed at any time and started again with
the same command, it goes on from the last saved state.
"""

import logging
import os
import sys
from collections.abc import Sequence

from training.config import parse_config
from training.errors import EncoreError
from training.failure import explain
from training.imports import lasting
from training.tether import STOPPED, Stopped, Tether


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; what the user can mend is one line and status 1, an order to stop status 75.

    A parent that sets `ENCORE_TETHER=1` stops the run by closing the pipe it gave it as stdin.
    """
    first = os.environ.get("RANK", "0") == "0"  # set by the launcher in each process
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stderr)
    for chatty in ("accelerate", "transformers", "datasets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with Tether(stdin=os.environ.get("ENCORE_TETHER") == "1", silent=not first) as tether:
        try:
            config = parse_config(arguments)
            with lasting():
                from training.run import run  # here, since it loads torch: seconds in which the parent may end

            run(config, tether)
        except EncoreError as error:
            return _failed(error)
        except Stopped:
            tether.say()
            return STOPPED
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; the same command goes on from the last saved state\n")
            return 130
        except Exception as error:
            known = explain(error)
            if known is None:
                raise
            return _failed(known)
    return 0


def _failed(error: EncoreError) -> int:
    """Say why as one line, which a parent may read from the end of stderr."""
    sys.stderr.write(f"error: {' '.join(str(error).splitlines())}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
