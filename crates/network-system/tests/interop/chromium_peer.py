"""Opens a chat page twice in headless Chromium, types into it, and tells what the pages show.

usage: chromium_peer.py URL FOLDER      FOLDER is for Chromium's files

From its input: `0 TEXT` types TEXT into the first page and presses Enter, `1 TEXT` into the second; at
the end of the input the pages are looked at once more. Prints `0 state TEXT` and `0 line TEXT` as the pages
show them, and `ok` last.

It speaks the DevTools protocol over a pipe, not over a port: so Chromium ends when this script does, however
that may be.
"""

import asyncio
import json
import sys

# nothing that works takes this long
LIMIT = 25
TOTAL = 150

# Tells us what the page shows, from its beginning.
WATCH = """
addEventListener("DOMContentLoaded", () => {
  const state = document.getElementById("state"), lines = document.getElementById("lines");
  const tellState = () => tell("state " + state.textContent);
  const tellLine = line => tell("line " + line.textContent);
  tellState();
  [...lines.children].forEach(tellLine);
  new MutationObserver(tellState).observe(state, { childList: true });
  new MutationObserver(changes => changes.forEach(change => change.addedNodes.forEach(tellLine)))
    .observe(lines, { childList: true });
});
"""


class Chromium:
    def __init__(self, process):
        self.process = process
        self.number = 0
        self.answers = {}
        # by the id of the page's session
        self.pages = {}
        self.errors = []

    async def listen(self):
        try:
            while True:
                self.take(json.loads((await self.process.stdout.readuntil(b"\0"))[:-1]))
        except asyncio.IncompleteReadError:
            waiting = [answer for answer in self.answers.values() if not answer.done()]
            for answer in waiting:
                answer.set_exception(ConnectionError("Chromium has gone"))

    def take(self, message):
        parameters = message.get("params", {})
        if "id" in message:
            answer = self.answers.pop(message["id"])
            if not answer.done():
                answer.set_result(message)
        elif message["method"] == "Runtime.bindingCalled":
            print(self.pages[message["sessionId"]], parameters["payload"], flush=True)
        elif message["method"] == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"])

    async def call(self, method, session=None, **parameters):
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters}
        if session:
            request["sessionId"] = session
        answer = self.answers[self.number] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps(request).encode() + b"\0")
        message = await asyncio.wait_for(answer, LIMIT)
        assert "error" not in message, (method, message)
        return message["result"]

    async def open(self, url):
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = attached["sessionId"]
        self.pages[page] = len(self.pages)
        await self.call("Page.enable", page)
        await self.call("Runtime.enable", page)
        await self.call("Runtime.addBinding", page, name="tell")
        await self.call("Page.addScriptToEvaluateOnNewDocument", page, source=WATCH)
        # both pages behave as if they were in front
        await self.call("Emulation.setFocusEmulationEnabled", page, enabled=True)
        await self.call("Page.navigate", page, url=url)
        return page

    async def type(self, page, text):
        await self.call("Input.insertText", page, text=text)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        for kind in ["keyDown", "keyUp"]:
            await self.call("Input.dispatchKeyEvent", page, type=kind, **enter)

    async def value(self, page, expression):
        result = await self.call("Runtime.evaluate", page, expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"]["value"]

    async def look(self, page):
        """What strangers wrote is text; the page fits on a phone, and knows day and night."""
        elements = await self.value(page, "document.querySelectorAll('#lines :not(li)').length")
        assert elements == 0, elements
        await self.call(
            "Emulation.setDeviceMetricsOverride", page, width=320, height=600, deviceScaleFactor=2, mobile=True
        )
        assert await self.value(page, "innerWidth") == 320
        width = await self.value(page, "document.documentElement.scrollWidth")
        assert width <= 320, width
        colours = set()
        for scheme in ["light", "dark"]:
            feature = {"name": "prefers-color-scheme", "value": scheme}
            await self.call("Emulation.setEmulatedMedia", page, features=[feature])
            colours.add(await self.value(page, "getComputedStyle(document.body).backgroundColor"))
        assert len(colours) == 2, colours


async def talk(chromium, url):
    pages = [await chromium.open(url), await chromium.open(url)]
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        page, text = line.rstrip("\n").split(" ", 1)
        await chromium.type(pages[int(page)], text)
    for page in pages:
        await chromium.look(page)
    assert not chromium.errors, chromium.errors
    await chromium.call("Browser.close")


async def main(url, folder):
    flags = [
        "--headless=new",
        # it needs more than containers and root have; the only page is ours
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
    ]
    # it reads from descriptor 3 and writes to 4
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        'exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1',
        "chromium",
        *flags,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    chromium = Chromium(process)
    listening = asyncio.create_task(chromium.listen())
    try:
        await asyncio.wait_for(talk(chromium, url), TOTAL)
        await asyncio.wait_for(process.wait(), LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await listening
    print("ok", flush=True)


asyncio.run(main(*sys.argv[1:]))
