"""What importing the package brings with it."""

from __future__ import annotations

import os
import subprocess
import sys

import signal_persistence


def test_what_only_some_users_need_is_not_imported_with_the_package() -> None:
    code = "import sys, signal_persistence; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    imported = set(done.stdout.split())
    assert "signal_persistence.subscriber" in imported
    assert not imported & {"realtime", "supabase", "httpx", "pydantic", "websockets"}


def test_every_public_name_is_there() -> None:
    assert all(hasattr(signal_persistence, name) for name in signal_persistence.__all__)
    assert sorted(signal_persistence.__all__) == signal_persistence.__all__
