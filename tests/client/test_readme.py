"""The client's README shows code that runs and defaults that are so."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from signal_persistence import Producer
from tests.plugins.stack import Account, RunningStack

README = Path(__file__).parents[2] / "python_client" / "README.md"


def test_the_examples_run_one_after_the_other(
    stack: RunningStack, account: Account, tmp_path: Path
) -> None:
    environment = os.environ | {
        "SUPABASE_URL": stack.api_url,
        "SUPABASE_ANON_KEY": stack.publishable_key,
        "SIGNALS_EMAIL": account.email,
        "SIGNALS_PASSWORD": account.password,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    shown = []
    for example in re.findall(
        r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE
    ):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        shown.append(done.stdout.strip())
    publish, follow, query, table, export, advance, events, cache = shown
    assert publish == "accepted 1"
    assert follow == "1 ES=F enter_long 5321.25"
    assert query.endswith("ES=F 5321.25")
    assert "ES=F    0.82" in table
    assert export == "1 signals"
    assert (tmp_path / "week.csv").read_text().count("ES=F") == 1
    assert advance == "1 ES=F executed\n2 ES=F closed"
    assert events == "1 ES=F executed"
    assert cache == "1 5321.25 1 True"


@pytest.mark.parametrize(
    ("name", "parameter"), list(inspect.signature(Producer).parameters.items())[3:]
)
def test_every_setting_is_described_with_its_default(
    name: str, parameter: inspect.Parameter
) -> None:
    settings = README.read_text().partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in settings.splitlines() if line.startswith("| `")]
    described = {
        setting.strip(" `"): default.strip()
        for row in rows
        for setting, default in zip(row[1].split(", "), row[2].split(", "), strict=True)
    }
    units = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
    number, _, unit = described[name].replace(",", "").strip('`"').partition(" ")
    expected = {"none": None, "no": False}.get(number, number)
    if isinstance(parameter.default, int | float) and parameter.default is not False:
        assert int(number) * units.get(unit, 1) == parameter.default
    else:
        assert expected == parameter.default
