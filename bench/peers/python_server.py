"""Peers that keep a native python3 warm, behind the HTTP server of its library: `fork` or `kernel`.

fork: the modules of the benchmark are imported once, and each request runs in a fork of that process: pristine, not contained.
kernel: one ipykernel, as notebooks have it, behind its client: a session of all callers, neither pristine nor contained.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

mode = sys.argv[1]
lock = threading.Lock()

if mode == "kernel":
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel()

    def run(code):
        printed = []

        def hook(message):
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        # One kernel runs one cell at a time.
        with lock:
            client.execute_interactive(code, output_hook=hook, timeout=60)
        return "".join(printed)

else:
    import dataclasses, re, statistics  # noqa: E401, F401

    def run(code):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            os.dup2(write, 1)
            sys.stdout = open(1, "w", closefd=False)
            try:
                exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
                sys.stdout.flush()
            finally:
                os._exit(0)
        os.close(write)
        with open(read) as pipe:
            printed = pipe.read()
        os.waitpid(child, 0)
        return printed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else each reply waits for the acknowledgement of its headers.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        reply = json.dumps({"success": True, "stdout": run(body["code"])}, separators=(",", ":")).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(f"Ready on http://127.0.0.1:{server.server_address[1]}", flush=True)
try:
    server.serve_forever()
finally:
    if mode == "kernel":
        manager.shutdown_kernel(now=True)
