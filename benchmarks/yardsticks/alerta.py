"""alerta-server from PyPI on PostgreSQL, behind uWSGI: as its documentation and its own image run it.

Without what would cost it something here: no nginx before it, no keys, no workers that are replaced every 30 seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.work import alert

PACKAGES: Final = ("alerta-server==9.1.0", "psycopg2-binary==2.9.*", "uwsgi==2.0.*", "setuptools<81")
PROCESSES: Final = 2
_SETTINGS: Final = "DATABASE_URL = {url!r}\nSECRET_KEY = 'for the benchmark'\n"
_WSGI: Final = "from alerta import create_app\n\napp = create_app()\n"
_UWSGI: Final = """\
[uwsgi]
module = wsgi
callable = app
master = true
processes = {processes}
listen = 100
buffer-size = 8192
disable-logging = true
vacuum = true
die-on-term = true
http = 127.0.0.1:{port}
http-keepalive = 60
"""


def installed() -> Path:
    """Give the virtual environment that has alerta-server; it is made once, in the user's directory for caches."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "siftbell-benchmarks" / "alerta-9.1.0"
    whole = place / "installed"
    if not whole.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(place / "bin" / "pip"), "install", "--quiet", *PACKAGES], check=True)
        whole.touch()
    return place


def command(place: Path, port: int, postgres: str) -> tuple[list[str], dict[str, str]]:
    """Write what it is to be told to `place`, and give the command that runs it there, and its variables."""
    settings = place / "alertad.conf"
    settings.write_text(_SETTINGS.format(url=postgres.replace("+psycopg", "")))
    (place / "wsgi.py").write_text(_WSGI)
    (place / "uwsgi.ini").write_text(_UWSGI.format(processes=PROCESSES, port=port))
    environment = installed()
    told = {"ALERTA_SVR_CONF_FILE": str(settings), "PYTHONPATH": str(place), "VIRTUAL_ENV": str(environment)}
    return [str(environment / "bin" / "uwsgi"), "--venv", str(environment), "--ini", str(place / "uwsgi.ini")], told


def as_alert(number: int) -> dict[str, Any]:
    """Give the alert that is measured, in alerta's own form."""
    ours = alert(number)
    labels = ours["labels"]
    return {
        "resource": labels["instance"],
        "event": labels["alertname"],
        "environment": "Production",
        "severity": "major",
        "service": [labels["team"]],
        "text": ours["text"],
        "tags": [f"job={labels['job']}"],
        "attributes": {"mountpoint": labels["mountpoint"], "device": labels["device"], "url": ours["url"], "key": ours["key"]},
    }
