"""Whether a path would give a secret away: settings are stored beside the data, and errors are shown to anybody."""

from __future__ import annotations

import re
from urllib.parse import unquote

# Names of parameters that sign a URL or open a door: of S3, Google Cloud, Azure, and those that people choose.
_SECRET = re.compile(
    r"sig|token|secret|passw|pwd|credential|auth|key|^x-(amz|goog)-|access|^s[vept]$|session|^jwt$", re.IGNORECASE
)


def problem_of(path: str) -> str | None:
    """Why a path, URL or not, may not be stored; the answer repeats nothing of it. None when it may."""
    if "://" not in path:
        return None
    _, _, rest = unquote(path).partition("://")
    location, _, parameters = rest.partition("?")
    host = re.split(r"[/#]", location, maxsplit=1)[0]
    # Keys have slashes now and then, so what stands before an @ need not look like a host.
    port = re.sub(r"^\[[^\]]*\]", "", host).partition(":")[2]
    if "@" in host or not re.fullmatch(r"\d*", port) or (port and "@" in location):
        return _sentence("a user name or a password")
    names = [part.partition("=")[0] for part in re.split("[&;#]", parameters)]
    if any(_SECRET.search(name) for name in names):
        return _sentence("a key, token or signature")
    return None


def _sentence(what: str) -> str:
    return (
        f"the path holds {what}, which would be stored in the dataset and shown in messages (it is not repeated here). "
        f"Leave it out, and give credentials in the environment or the configuration of the storage library"
    )
