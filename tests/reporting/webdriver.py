"""Minimal client of the WebDriver protocol (W3C) over HTTP: keys, scripts and printing."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DRIVER = shutil.which("chromedriver") or ""
ARROW_RIGHT, ARROW_LEFT, HOME, END, TAB, ENTER = "\ue014", "\ue012", "\ue011", "\ue010", "\ue004", "\ue007"
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One session."""

    def __init__(self, address: str, session: str) -> None:
        self.root = f"{address}/session/{session}"

    def open(self, page: Path) -> None:
        call("POST", f"{self.root}/url", {"url": page.as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        return call("POST", f"{self.root}/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css: str) -> str:
        found = call("POST", f"{self.root}/element", {"using": "css selector", "value": css})
        return str(found[_ELEMENT])

    def type(self, css: str, keys: str) -> None:
        call("POST", f"{self.root}/element/{self.find(css)}/value", {"text": keys})

    def clear(self, css: str) -> None:
        call("POST", f"{self.root}/element/{self.find(css)}/clear", {})

    def click(self, css: str) -> None:
        call("POST", f"{self.root}/element/{self.find(css)}/click", {})

    def print_pdf(self) -> bytes:
        return base64.b64decode(call("POST", f"{self.root}/print", {"background": True}))

    def messages(self) -> list[str]:
        found = call("POST", f"{self.root}/se/log", {"type": "browser"})
        return [str(one["message"]) for one in found]


def call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())["value"]


@contextmanager
def browser(binary: str, profile: Path, *, phone: int | None = None) -> Iterator[Browser]:
    """Start a driver on a port that it chooses, and a headless browser; ``phone`` is the width of an emulated one."""
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if "successfully on port" in line)
            port = line.rsplit("port", 1)[1].strip().rstrip(".")
            address = f"http://127.0.0.1:{port}"
            session = _start(address, binary, profile, phone)
            try:
                yield Browser(address, session)
            finally:
                call("DELETE", f"{address}/session/{session}")
        finally:
            process.terminate()


def _start(address: str, binary: str, profile: Path, phone: int | None) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    options: dict[str, Any] = {
        "binary": binary,
        "args": [*flags, f"--user-data-dir={profile}", "--window-size=1200,900"],
    }
    if phone is not None:
        options["mobileEmulation"] = {"deviceMetrics": {"width": phone, "height": 844, "pixelRatio": 2.0}}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    for _ in range(50):
        try:
            started = call("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError):
                raise
            time.sleep(0.1)  # the driver does not listen yet
        else:
            return str(started["sessionId"])
    raise AssertionError("the driver did not start")
