"""Files from elsewhere: had within the time they need, or given up on within seconds."""

import http.client
import socket
import threading
import urllib.parse
import urllib.request

from rd_elbo.errors import BadInput

_PROBE_SECONDS = 3.0
# Of silence, not of the whole download.
_SILENCE_SECONDS = 30.0


def reachable(url: str) -> bool:
    """Whether a connection to the host of `url`, or to its proxy, opens within 3 s.

    The time includes the look-up of the name.
    """
    answers: list[bool] = []
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.parse.urlsplit(urllib.request.getproxies().get(parts.scheme, ""))
    through_proxy = proxy.hostname and not urllib.request.proxy_bypass(parts.hostname or "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = (proxy.hostname, proxy.port or 80) if through_proxy else (parts.hostname, port)

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=_PROBE_SECONDS).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    # A name lookup has no timeout of its own, so it is left behind in a daemon thread if it takes
    # too long.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return bool(answers and answers[0])


def require(url: str, dataset: str, advice: str) -> None:
    """Raise `BadInput` unless the host of `url` answers.

    Args:
      url: Address of the dataset's file.
      dataset: Name of the dataset.
      advice: Way out for the user, a sentence.
    """
    if not reachable(url):
        host = urllib.parse.urlsplit(url).hostname
        raise BadInput(
            f"data.name={dataset!r}: expected its files here or at {host}, which cannot be "
            f"reached. {advice}"
        )


def download(url: str, dataset: str, advice: str) -> bytes:
    """What is at `url`; the arguments are those of `require`.

    Raises:
      BadInput: If the host does not answer, or not with the file.
    """
    require(url, dataset, advice)
    try:
        with urllib.request.urlopen(url, timeout=_SILENCE_SECONDS) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise BadInput(
            f"data.name={dataset!r}: expected a download from {url}, got none ({error}). {advice}"
        ) from error
