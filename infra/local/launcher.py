"""Starts the local AWS: ministack with this project's patches, in one process that leaves nothing behind.

    GATEWAY_PORT=4566 python launcher.py

When it serves, it prints one line to stdout, `ready http://127.0.0.1:4566`; everything else goes to stderr. It keeps
nothing: each start is an empty account. It reads these variables and no others (the functions that it runs see none
of its environment either):

    GATEWAY_PORT  the port to serve on, on 127.0.0.1 only; 0 or absent: any free one, named in the `ready` line
    TMPDIR        where its scratch folder goes, which it removes when it ends
    LOG_LEVEL     of its own log, WARNING by default: shows what a function printed that failed in a mapping
    PATH, LANG    as always

Clients use AWS_ENDPOINT_URL=http://127.0.0.1:4566, AWS_REGION=us-east-1 and the keys AWS_ACCESS_KEY_ID=test,
AWS_SECRET_ACCESS_KEY=test, which are the account's root. IAM is enforced: a function has its role's permissions and
no more.

It ends, and with it every function's process, on SIGTERM, on SIGINT, and when the process that started it is gone.
"""

import contextlib
import importlib.metadata
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
import uvloop

MINISTACK = "1.5.33"
REGION = "us-east-1"


def main() -> None:
    parent = os.getppid()
    refuse_other_versions()
    listener = listen(int(os.environ.get("GATEWAY_PORT", "0")))
    scratch = Path(tempfile.mkdtemp(prefix="carillon-aws-"))
    end_with_signals_and_parent(parent, scratch)
    take_environment(listener.getsockname()[1], scratch)

    # Only now: ministack reads its settings while it is imported.
    import patches

    patches.apply()
    # It warns at each deployment that it did not report its use.
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    uvloop.run(serve(listener))


def refuse_other_versions() -> None:
    """The patches reach into ministack's inside, so each version needs its own look at them."""
    found = importlib.metadata.version("ministack")
    if found != MINISTACK:
        sys.exit(
            f"the local AWS is patched for ministack {MINISTACK}, but {found} is installed: install "
            "infra/local/requirements.txt, or adapt the patches to it until infra/local/tests pass"
        )


def listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        sys.exit(f"the local AWS cannot listen on 127.0.0.1:{port}: {error.strerror}")
    listener.listen(128)
    return listener


def take_environment(port: int, scratch: Path) -> None:
    """Replaces the environment by exactly what ministack is to see, whatever the caller's shell holds."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    log_level = os.environ.get("LOG_LEVEL", "WARNING")
    os.environ.clear()
    os.environ.update(kept)
    os.environ.update(
        GATEWAY_PORT=str(port),
        BIND_HOST="127.0.0.1",
        MINISTACK_HOST="127.0.0.1",
        MINISTACK_REGION=REGION,
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
        AUTH="true",
        LAMBDA_EXECUTOR="local",
        IOT_MTLS_ENABLED="0",
        SFTP_ENABLED="0",
        LOG_LEVEL=log_level,
        TMPDIR=str(scratch),
        STATE_DIR=str(scratch / "state"),
        S3_DATA_DIR=str(scratch / "s3"),
    )
    tempfile.tempdir = str(scratch)


async def serve(listener: socket.socket) -> None:
    # Not by hypercorn, which ministack is written for: it is Python throughout, and every call waits for it.
    from ministack.app import app

    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="on",
        timeout_keep_alive=75,
        access_log=False,
        server_header=False,
        date_header=False,
        log_level=os.environ["LOG_LEVEL"].lower(),
    )
    await Server(config).serve([listener])


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"ready {os.environ['AWS_ENDPOINT_URL']}", flush=True)

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:
        """None: they end the process at once."""
        return contextlib.nullcontext()


def end_with_signals_and_parent(parent: int, scratch: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end(scratch))

    def watch_parent() -> None:
        # Polled, because PR_SET_PDEATHSIG fires when the *thread* ends that started this, and a test's soon does.
        while os.getppid() == parent:
            time.sleep(0.2)
        end(scratch)

    threading.Thread(target=watch_parent, daemon=True).start()


def end(scratch: Path) -> None:
    """Ends at once: nothing is to be kept, and an invocation may have minutes to go."""
    if functions := sys.modules.get("ministack.services.lambda_svc"):
        # ministack starts functions under this lock. It is not released, so that none starts after the sweep.
        functions._provided_code_lock.acquire(timeout=5)
    for process in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


def descendants(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [*descendants(child), child]
    return found


if __name__ == "__main__":
    main()
