"""wrk, the client: one closed loop per connection, in C, so that it takes little of the cores.

https://github.com/wg/wrk; `apt-get install wrk` on Debian.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# Latencies come from wrk's own histogram, in microseconds.
_REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"p50": %f, "p99": %f, "requests": %d, "seconds": %f, "errors": %d}\\n',
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.requests,
    summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class Load(NamedTuple):
    """What one run measured.

    Attributes:
        p50, p99: of latency, in milliseconds.
        rate: answers per second.
        errors: connections or answers that failed.
    """

    p50: float
    p99: float
    rate: float
    errors: int


def script(path: Path, body: bytes, headers: Mapping[str, str]) -> None:
    """Writes a Lua script that posts `body`; the body lies beside it, whatever bytes it holds."""
    payload = path.with_suffix(".body")
    payload.write_bytes(body)
    lines = ['wrk.method = "POST"']
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(headers[name])}" for name in headers]
    lines += [f'local file = io.open({json.dumps(str(payload))}, "rb")']
    lines += ['wrk.body = file:read("*all")', "file:close()"]
    path.write_text("\n".join(lines) + _REPORT)


def run(url: str, script: Path, connections: int, seconds: float) -> Load:
    """Asks a URL for some seconds (whole ones) over so many connections.

    Raises:
        RuntimeError: wrk failed; holds what it said.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--timeout=10s"]
    command += ["-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or "{" not in done.stdout:
        raise RuntimeError(f"wrk failed: {(done.stderr or done.stdout).strip()}")
    found = json.loads(done.stdout.splitlines()[-1])
    rate = found["requests"] / found["seconds"]
    return Load(found["p50"], found["p99"], rate, found["errors"])
