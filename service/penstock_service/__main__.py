"""`penstock` and `python -m penstock_service`."""

import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock_service.config import Settings


def main() -> None:
    # For so many ms Arrow's allocator (mimalloc) keeps memory that was freed; it reads this when it is loaded. A chunk
    # is decoded into the memory of the one before it; what is left over is given back each second (app/guard.py).
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "1000")
    gc.disable()  # nothing that is imported is garbage: looking for some is a tenth of a start
    try:
        from penstock_service.admin.cli import main as run_command
    except ModuleNotFoundError as missing:
        # The light client is installed without what the server needs, and has this script all the same.
        print(f"penstock: {missing.name} is not installed; pip install 'penstock[service]'", file=sys.stderr)
        sys.exit(1)
    gc.enable()
    sys.exit(run_command(_serve))


def _serve(settings: "Settings") -> int:
    gc.disable()
    from penstock_service.app import run  # here, so that commands which only ask a server start at once

    gc.freeze()
    gc.enable()
    return run(settings)


if __name__ == "__main__":
    main()
