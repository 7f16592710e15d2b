"""The entry point of `signals`; without the extra it says what to install."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; it ends the process."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as missing:
        sys.exit(
            f"Cannot run signals: {missing.name} is not installed; "
            "run pip install 'signal-persistence[cli]'."
        )
    from signal_persistence.cli.app import app

    app(prog_name="signals")


if __name__ == "__main__":
    main()
