"""Where images would go, with which key, and whether that needs somebody's consent."""

from __future__ import annotations

import hashlib
import importlib
import ipaddress
import os
import ssl
from types import ModuleType
from urllib.parse import urlsplit

OPENAI_URL = "https://api.openai.com/v1"


class SettingsError(ValueError):
    """A setting of a critic that cannot work; the message says which and what to do."""


def effective_url(base_url: str | None) -> str:
    """The server's address: as given, else from ``OPENAI_BASE_URL``, else OpenAI's own.

    Raises
    ------
    SettingsError : not an http(s) address
    """
    url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(f"--base-url must be an address such as http://localhost:8000/v1, got {url!r}")
    return url


def server_name(base_url: str | None) -> str:
    """Host and port of the server, for people to read; without user name and password."""
    return urlsplit(effective_url(base_url)).netloc.rpartition("@")[2]


def server_id(base_url: str | None) -> str:
    """Twelve hex digits that stand for the server's address in a store, which holds no addresses."""
    parts = urlsplit(effective_url(base_url))
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"
    return hashlib.sha256(address.encode()).hexdigest()[:12]


def api_key(url: str) -> str | None:
    """The key in ``OPENAI_API_KEY`` without blanks around it; None where there is none.

    Raises
    ------
    SettingsError : it holds what no header may hold, or there is none and the
        server is on another machine
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not all(33 <= ord(character) <= 126 for character in key):
        raise SettingsError(
            "OPENAI_API_KEY holds a blank, a line end or a character that is not plain ASCII "
            "in the middle of it; copy the key again"
        )
    if not key and not is_loopback(url):
        raise SettingsError("no key: set the environment variable OPENAI_API_KEY")
    return key or None


def certificates() -> ssl.SSLContext | bool:
    """What TLS trusts: ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` where they are set, else True, the default.

    Raises
    ------
    SettingsError : they cannot be read
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not (file or folder):
        return True
    try:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    except OSError as error:
        raise SettingsError(
            f"cannot read the certificates of SSL_CERT_FILE={file} or SSL_CERT_DIR={folder}: {error}"
        ) from None


def http_client(url: str, timeout: float):
    """The HTTP client for a server: no redirects, and no proxy for what stays on this machine.

    Raises
    ------
    SettingsError : a proxy or certificates of the environment cannot be used
    """
    import openai

    trusted = certificates()
    try:
        return openai.DefaultHttpxClient(
            follow_redirects=False, trust_env=not is_loopback(url), timeout=timeout, verify=trusted
        )
    except (ImportError, ValueError, RuntimeError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(
            f"a proxy named in the environment (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) cannot be used: {words}"
        ) from None


def library_of(http) -> ModuleType:
    """The package that the client is of: httpx, or its successor httpx2."""
    name = next(kind.__module__ for kind in type(http).__mro__ if kind.__module__.startswith("httpx"))
    return importlib.import_module(name.partition(".")[0])


def is_loopback(url: str) -> bool:
    """Whether an address stays on this machine, going by its host name alone."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_synthetic(dataset: str) -> bool:
    """Whether a data set is made up or long public: DecoyMNIST, and phantoms of any kind."""
    return dataset == "decoy-mnist" or "phantom" in dataset


def require_consent(dataset: str, url: str, i_may_send_these_images: bool) -> None:
    """Refuse to send real images to another machine unasked.

    Raises
    ------
    SettingsError : the data set is not synthetic, the server is not on this
        machine, and consent was not given
    """
    if is_synthetic(dataset) or is_loopback(url) or i_may_send_these_images:
        return
    raise SettingsError(
        f"the images of {dataset} would leave this machine and go to {urlsplit(url).netloc.rpartition('@')[2]}; "
        "if their owners and your rules allow that, add --i-may-send-these-images"
    )
