"""The loop of a child process: requests in, events and results out, as lines of JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from upframe.errors import UpframeError
from upframe.files import Lock, remove_unfinished
from upframe.service.child.desk import Desk
from upframe.service.problems import wire_error

log = logging.getLogger(__name__)


def main() -> None:
    name, device, root = sys.argv[1:4]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    answers = _private_stdout()
    os.chdir(Path(root) / "logs")  # the name of a model must not mean a file that happens to lie in a folder
    with Lock(Path(root) / f"{name}.lock", wait=True):  # a child of a server that was killed may still be ending
        _Loop(answers, device).run(preload=name)


def _private_stdout() -> BinaryIO:
    """The channel to the server. Whatever a library prints goes to the log instead."""
    channel = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return channel


class _Loop:
    def __init__(self, answers: BinaryIO, device: str) -> None:
        self._answers, self._device = answers, device
        self._writing = threading.Lock()
        self._requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._cancel, self._number = threading.Event(), 0

    def run(self, *, preload: str) -> None:
        threading.Thread(target=self._listen, name="requests", daemon=True).start()
        if not preload.startswith("view"):
            import upframe.jobs.running  # noqa: F401 (takes seconds; the first job should not)
        while True:
            self._answer(self._requests.get())

    def _listen(self) -> None:
        """Read requests. The end of the input is the end of the server, and of this process, whatever it is doing."""
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if message.get("cancel") == self._number:
                self._cancel.set()
            elif "task" in message:
                self._number = message["number"]
                self._cancel = threading.Event()
                self._requests.put(message | {"stop": self._cancel})
        remove_unfinished()
        os._exit(0)

    def _answer(self, message: dict[str, Any]) -> None:
        number = message["number"]

        def tell(event: str, data: dict[str, Any]) -> None:
            self._send({"number": number, "event": event, "data": data})

        try:
            result = _do(message["task"], message["request"], Desk(self._device, tell, message["stop"]))
        except UpframeError as error:
            self._send({"number": number, "error": wire_error(error).model_dump()})
        except Exception as error:
            log.exception("%s", message["task"])
            failure = UpframeError(message["task"], f"internal error ({type(error).__name__}: {error})", "report it")
            self._send({"number": number, "error": wire_error(failure).model_dump()})
        else:
            self._send({"number": number, "result": result})

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._writing:
            while data:
                data = data[self._answers.write(data) or 0 :]


def _do(task: str, request: dict[str, Any], desk: Desk) -> dict[str, Any]:
    if task == "plan":
        from upframe.service.child.planning import plan

        return plan(request, desk)
    if task == "render":
        from upframe.service.child.rendering import render

        return render(request, desk)
    if task == "trial":
        from upframe.service.child.trials import trial

        return trial(request, desk)
    from upframe.service.child.views import view

    return view(request, desk)
