"""An edge function's worker gets hosted's environment, and may reach nothing but loopback."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from local_stack import functions_runner
from local_stack.keys import Keys
from local_stack.settings import StackSettings

HOSTED_VARIABLES = {
    "SUPABASE_URL",
    "SUPABASE_ANON_KEY",
    "SUPABASE_SERVICE_ROLE_KEY",
    "SUPABASE_DB_URL",
    "SUPABASE_PUBLISHABLE_KEYS",
    "SUPABASE_SECRET_KEYS",
    "SUPABASE_JWKS",
    "SB_REGION",
    "SB_EXECUTION_ID",
    "DENO_DEPLOYMENT_ID",
}
PROBE = """
const attempt = async (what: () => unknown) => {
  try {
    await what();
    return "allowed";
  } catch (error) {
    return (error as Error).name;
  }
};
console.log(JSON.stringify({
  environment: Deno.env.toObject(),
  read: await attempt(() => Deno.readTextFile("/etc/hostname")),
  write: await attempt(() => Deno.writeTextFile("/tmp/written-by-a-function", "")),
  run: await attempt(() => new Deno.Command("/bin/true").output()),
  internet: await attempt(() => Deno.connect({ hostname: "192.0.2.1", port: 80 })),
}));
"""


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a worker sees of its world."""
    monkeypatch.setattr(functions_runner, "FUNCTIONS", tmp_path)
    monkeypatch.setenv("A_SECRET_OF_THE_HOST", "secret")
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "index.ts").write_text(PROBE)
    (tmp_path / ".env").write_text("# ours\nOWN_SETTING='given'\n")
    settings = StackSettings(
        name="probe", function_ports={"probe": 20_000}, state_root=str(tmp_path / "state")
    )
    spec = functions_runner.function_service(settings, Keys.load(settings), "probe")
    done = subprocess.run(
        spec.command,
        env=dict(spec.environment),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, object] = json.loads(done.stdout)
    return seen


def test_a_worker_sees_hosted_variables_and_nothing_of_the_host(probe: dict[str, object]) -> None:
    environment = probe["environment"]
    assert isinstance(environment, dict)
    assert environment.keys() >= HOSTED_VARIABLES
    assert environment["SUPABASE_URL"] == "http://127.0.0.1:54321"
    assert environment["DENO_SERVE_ADDRESS"] == "tcp:127.0.0.1:20000"
    assert environment["OWN_SETTING"] == "given"
    assert "A_SECRET_OF_THE_HOST" not in environment
    assert json.loads(environment["SUPABASE_JWKS"])["keys"][0]["alg"] == "ES256"
    signing_key = json.loads(environment["SIGNAL_JWT_SIGNING_KEY"])
    assert signing_key["kid"] == json.loads(environment["SUPABASE_JWKS"])["keys"][0]["kid"]
    assert json.loads(environment["SUPABASE_SECRET_KEYS"]).keys() == {"default"}


@pytest.mark.parametrize("what", ["read", "write", "run", "internet"])
def test_a_worker_is_refused_what_it_does_not_need(probe: dict[str, object], what: str) -> None:
    assert probe[what] == "NotCapable"


def test_every_function_folder_of_the_repository_is_run() -> None:
    assert {"exchange-api-key", "ingest-signals", "query-signals"} <= set(
        functions_runner.function_names()
    )
    assert not [name for name in functions_runner.function_names() if name.startswith("_")]
