#!/usr/bin/env python3
"""Drives the dashboard in headless Chromium, over the pipe of its DevTools protocol; used by admin.rs.

dashboard.py URL TOKEN: waits for numbers, checks them against the JSON API, kicks every session. Prints
what is wrong and exits 1.
"""
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

url, token = sys.argv[1].rstrip("/"), sys.argv[2]


class Browser:
    def __init__(self, profile):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # above all that is in use, so that 3 and 4 overwrite neither
        high = [os.dup2(fd, n) for fd, n in ((theirs_in, 40), (theirs_out, 41))]

        def place():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=place)
        for fd in (theirs_in, theirs_out, *high):
            os.close(fd)
        self.reader, self.out = os.fdopen(ours_in, "rb", buffering=0), ours_out
        self.rest, self.number, self.said, self.session = b"", 0, [], None

    def message(self):
        while b"\0" not in self.rest:
            more = self.reader.read(65536)
            if not more:
                raise SystemExit("chromium has ended")
            self.rest += more
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.out, json.dumps(request).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise SystemExit(f"{method}: {message['error']}")
                return message["result"]
            if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.said.append(message["params"])

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    def until(self, expression):
        end = time.monotonic() + 30
        while not self.value(expression):
            if time.monotonic() > end:
                raise SystemExit(f"never true: {expression}\n{self.value('document.body.innerText')}\n{self.said}")
            time.sleep(0.05)


def api(path):
    with urllib.request.urlopen(url + path) as answer:
        return json.load(answer)


with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    browser = Browser(profile)
    try:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            browser.call(f"{domain}.enable")
        browser.call("Page.navigate", url=url + "/")
        browser.until("document.getElementById('state')?.textContent === 'live'")
        numbers = api("/api/statistics")
        for key in ("messages_in", "messages_out", "bytes_in", "bytes_out", "connections_active", "sessions"):
            browser.until(f"document.querySelector('[data-key={key}]')?.dataset.value === '{numbers[key]}'")
        rows = "document.querySelectorAll('#sessions tbody tr').length"
        browser.until(f"{rows} === {numbers['sessions']}")
        if browser.value("document.querySelectorAll('canvas').length") != 4:
            raise SystemExit("there are not four charts")
        if browser.said:
            raise SystemExit(f"the console says {browser.said}")
        # on a phone nothing is wider than the screen
        browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        browser.until("document.documentElement.scrollWidth <= 360")
        browser.value(f"document.getElementById('token').value = {json.dumps(token)}")
        for _ in range(numbers["sessions"]):
            before = browser.value(rows)
            browser.value("document.querySelector('#sessions tbody button').click()")
            browser.until(f"{rows} < {before}")
        if api("/api/sessions")["total"] != 0:
            raise SystemExit("not all are gone")
        if browser.said:
            raise SystemExit(f"the console says {browser.said}")
    finally:
        browser.process.kill()
        browser.process.wait()
