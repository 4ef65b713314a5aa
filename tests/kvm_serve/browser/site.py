# What the page asks for. PAGE: the page's text. Writes `port NUMBER` when it listens.
import base64
import hashlib
import http.server
import sys
import threading

PATIENCE = 30
following = threading.Semaphore(1)
over = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body, kind="text/plain"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.answer(body.upper())

    def do_GET(self):
        if self.path == "/":
            self.answer(sys.argv[1].encode(), "text/html")
        elif self.path == "/next":
            following.release()
            self.answer(b"")
        elif self.path == "/over":
            over.set()
            self.answer(b"")
        elif self.path == "/held":
            over.wait(PATIENCE)
            self.answer(b"", "image/png")
        elif self.path == "/events":
            self.events()
        elif self.path == "/socket":
            self.socket()
        else:
            self.send_error(404)

    def events(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for number in range(1, 4):
            following.acquire(timeout=PATIENCE)
            self.wfile.write(b"data: %d\n\n" % number)
        over.wait(PATIENCE)
        self.close_connection = True

    # RFC 6455: whatever comes is sent back, and the client's close is answered.
    def socket(self):
        key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest())
        self.send_header("sec-websocket-accept", accept.decode())
        self.end_headers()
        self.close_connection = True
        opcode = 1
        while opcode != 8:
            first, length = self.rfile.read(2)
            opcode, length = first & 15, length & 127
            mask = self.rfile.read(4)
            body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(length)))
            self.wfile.write(bytes([0x80 | opcode, length]) + body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, flush=True)
server.serve_forever()
