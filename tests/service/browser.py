"""Pages as a reader sees them, in headless Chromium, driven through its debugging interface."""

import base64
import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WINDOW = (1400, 1000)
START_SECONDS, ANSWER_SECONDS = 120, 120


class Page:
    """One tab."""

    def __init__(self, socket):
        self._socket = socket
        self._asked = 0

    def call(self, method: str, **parameters) -> dict:
        """What the browser answers."""
        self._asked += 1
        self._socket.send(json.dumps({"id": self._asked, "method": method, "params": parameters}))
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            said = json.loads(self._socket.recv(timeout=max(0.1, deadline - time.monotonic())))
            if said.get("id") == self._asked:
                return said["result"]

    def evaluate(self, expression: str):
        """The value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def open(self, url: str, *texts: str, seconds: float = 240) -> str:
        """Go to ``url`` and wait until the page shows all ``texts``; everything that it shows."""
        self.call("Page.navigate", url=url)
        return self.shows(*texts, seconds=seconds)

    def shows(self, *texts: str, seconds: float = 240) -> str:
        """Wait until the page shows all ``texts``; everything that it shows."""
        deadline = time.monotonic() + seconds
        while True:
            shown = self.evaluate("document.body ? document.body.innerText : ''") or ""
            missing = [text for text in texts if text not in shown]
            if not missing:
                return shown
            assert time.monotonic() < deadline, f"not on the page: {missing}. It shows: {shown[:2000]}"
            time.sleep(0.5)

    def click(self, text: str) -> None:
        """Click on the smallest thing that says ``text`` and nothing else."""
        found = self.evaluate(
            f"""(() => {{
                const all = [...document.querySelectorAll('body *')];
                const one = all.filter(e => e.innerText && e.innerText.trim() === {json.dumps(text)}).pop();
                if (one) one.click();
                return Boolean(one);
            }})()"""
        )
        assert found, f"nothing to click on says {text!r}"

    def picture(self, path: Path, settle: float = 2.0) -> Path:
        """A PNG of what is in the window, once what moves has come to rest."""
        time.sleep(settle)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path


@contextmanager
def browser(folder: Path):
    """A browser with one page."""
    size = ",".join(map(str, WINDOW))
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server")
    said = folder / "chromium.log"
    with open(said, "wb") as log:
        process = subprocess.Popen(
            [
                *(CHROMIUM, *options, *quiet, f"--window-size={size}", "--remote-debugging-port=0"),
                *(f"--user-data-dir={folder / 'chromium'}", "about:blank"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(r"DevTools listening on ws://([\d.]+:\d+)", said.read_text(errors="replace"))):
            assert process.poll() is None and time.monotonic() < deadline, said.read_text(errors="replace")
            time.sleep(0.2)
        (tab, *_) = [
            one for one in httpx.get(f"http://{found[1]}/json", trust_env=False).json() if one["type"] == "page"
        ]
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            page = Page(socket)
            page.call("Page.enable")
            width, height = WINDOW
            page.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            yield page
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
