# A gRPC service whose messages are plain bytes, and its client. `serve`: writes `port NUMBER`, then `ended` for each
# call of Wait that its client has given up. `call PORT ROOT NAME`: one line for each thing that came of it.
import sys
import threading
from concurrent import futures

import grpc


def serve():
    def wait(request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(30)
        print("ended", flush=True)
        return b""

    def refuse(request, context):
        context.set_trailing_metadata((("reason-bin", b"\x00\xff"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: 100% ä")

    def count(request, context):
        context.send_initial_metadata((("seen", dict(context.invocation_metadata())["asked"]),))
        for number in range(int(request)):
            yield str(number).encode()

    def echo(requests, context):
        for request in requests:
            yield b"echo " + request

    handlers = {
        "Upper": grpc.unary_unary_rpc_method_handler(lambda request, context: request.upper()),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Join": grpc.stream_unary_rpc_method_handler(lambda requests, context: b"".join(requests)),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Calls", handlers),))
    print("port", server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination(60)


def call(port, root, name):
    with open(root, "rb") as file:
        trusted = grpc.ssl_channel_credentials(file.read())
    options = (("grpc.ssl_target_name_override", name),)
    channel = grpc.secure_channel(f"127.0.0.1:{port}", trusted, options)

    print("unary", channel.unary_unary("/test.Calls/Upper")(b"some", timeout=8))

    counting = channel.unary_stream("/test.Calls/Count")(b"3", timeout=8, metadata=(("asked", "yes"),))
    print("server", dict(counting.initial_metadata())["seen"], list(counting))

    large = [bytes([letter]) * 100_000 for letter in b"abc"]
    joined = channel.stream_unary("/test.Calls/Join")(iter(large), timeout=8)
    print("client", joined == b"".join(large))

    # Each message is sent only when the answer to the one before has come.
    answered = threading.Semaphore(1)

    def messages():
        for text in (b"one", b"two", b"three"):
            answered.acquire(timeout=8)
            yield text

    answers = []
    for answer in channel.stream_stream("/test.Calls/Echo")(messages(), timeout=8):
        answers.append(answer)
        answered.release()
    print("both", answers)

    for what, path, patience in (
        ("application", "/test.Calls/Refuse", 8),
        ("deadline", "/test.Calls/Wait", 0.3),
        ("unknown", "/test.Calls/None", 8),
        ("gone", "/test.Gone/Any", 8),
        ("nobody", "/test.Nobody/Any", 8),
    ):
        try:
            channel.unary_unary(path)(b"", timeout=patience)
            print(what, "answered")
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            said = trailers.get("weir-error") or trailers.get("reason-bin")
            print(what, error.code().name, said, "ä" in error.details())


if sys.argv[1] == "serve":
    serve()
else:
    call(*sys.argv[2:])
