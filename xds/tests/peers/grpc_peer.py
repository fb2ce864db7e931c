"""A gRPC client, and servers for it to call, that do what each line on standard input says.

Lines in and out are JSON objects. A line in has `do`:

serve   names            starts servers that answer with their name       -> ports by name
call    target, seconds  calls once, with a channel of its own            -> answer or error, seconds
load    target           starts calls, a few hundred per second           -> {}
report                   tells of the calls since the last report         -> answers by name, failed, failures
finish                   ends the load when the open calls have ended     -> as report
"""

import collections
import json
import sys
import threading
import time
from concurrent import futures

import grpc

METHOD = "/test.Echo/Name"
WORKERS = 3
PAUSE_SECONDS = 0.005
CALL_SECONDS = 10
KEPT_FAILURES = 5


def start_server(name):
    answer = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    handlers = grpc.method_handlers_generic_handler("test.Echo", {"Name": answer})
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), handlers=[handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def described(error):
    return f"{error.code().name}: {error.details()}"


def call_once(target, seconds):
    started = time.monotonic()
    # Channels of one target share their connections unless told otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options=options) as channel:
        try:
            outcome = {"answer": channel.unary_unary(METHOD)(b"", timeout=seconds).decode()}
        except grpc.RpcError as error:
            outcome = {"error": described(error)}
    return {**outcome, "seconds": time.monotonic() - started}


class Load:
    def __init__(self, target):
        self.channel = grpc.insecure_channel(target)
        self.method = self.channel.unary_unary(METHOD)
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.clear()
        self.workers = [threading.Thread(target=self.run, daemon=True) for _ in range(WORKERS)]
        for worker in self.workers:
            worker.start()

    def clear(self):
        self.answers = collections.Counter()
        self.failed = 0
        self.failures = []

    def run(self):
        while not self.stop.wait(PAUSE_SECONDS):
            try:
                name = self.method(b"", timeout=CALL_SECONDS).decode()
            except grpc.RpcError as error:
                with self.lock:
                    self.failed += 1
                    if len(self.failures) < KEPT_FAILURES:
                        self.failures.append(described(error))
            else:
                with self.lock:
                    self.answers[name] += 1

    def report(self):
        with self.lock:
            told = {"answers": self.answers, "failed": self.failed, "failures": self.failures}
            self.clear()
        return told

    def finish(self):
        self.stop.set()
        for worker in self.workers:
            worker.join()
        self.channel.close()
        return self.report()


def main():
    servers = []
    load = None
    for line in sys.stdin:
        order = json.loads(line)
        what = order["do"]
        reply = {}
        if what == "serve":
            ports = {}
            for name in order["names"]:
                server, ports[name] = start_server(name)
                servers.append(server)
            reply = {"ports": ports}
        elif what == "call":
            reply = call_once(order["target"], order["seconds"])
        elif what == "load":
            load = Load(order["target"])
        elif what == "report":
            reply = load.report()
        elif what == "finish":
            reply = load.finish()
        else:
            raise ValueError(f"unknown order {what!r}")
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
