"""Pages as a reader sees them, in headless Chromium, driven through its debugging interface."""

import base64
import json
import re
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from processes import process, ready
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WINDOW = (1400, 1000)
START_SECONDS, ANSWER_SECONDS = 120, 120
ADDRESS = re.compile(r"DevTools listening on ws://([\d.]+:\d+)")
IMAGES_ARE_THERE = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"


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

    def picture(self, path: Path, seconds: float = 30) -> Path:
        """A PNG of what is in the window, once its images are there and three looks see the same.

        After ``seconds`` it is taken as it is: a page may show a clock.
        """
        deadline, seen = time.monotonic() + seconds, []
        while len(seen) < 3 or len(set(seen[-3:])) > 1 or not self.evaluate(IMAGES_ARE_THERE):
            if seen and time.monotonic() > deadline:
                break
            time.sleep(0.5)
            seen.append(self.call("Page.captureScreenshot", format="png")["data"])
        path.write_bytes(base64.b64decode(seen[-1]))
        return path


@contextmanager
def browser(folder: Path):
    """A browser with one page."""
    size = ",".join(map(str, WINDOW))
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server")
    command = (CHROMIUM, *options, *quiet, f"--window-size={size}", "--remote-debugging-port=0")
    with process(*command, f"--user-data-dir={folder / 'chromium'}", "about:blank", cwd=folder) as chromium:
        found = ready(chromium, lambda: ADDRESS.search(chromium.log.read_text(errors="replace")), START_SECONDS)
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
