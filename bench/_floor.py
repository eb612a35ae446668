"""The least a server can do for the same answer: raw ASGI on uvicorn, one model, no checks.

    python bench/_floor.py MODEL.onnx CONTRACT.json

Decodes the JSON that the data plane gets straight into the types of the contract, builds the float32 matrix, runs the
model with the same settings, encodes the predictions. No validation beyond the types, no version, no second model, no
counts, no errors. It says `{"port": N}` when it listens. Nothing of Lockgate is imported.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import uvicorn
import uvloop

_TYPES: dict[str, Any] = {"float": float, "int": int, "bool": bool, "category": str}


class Floor:
    """The application."""

    def __init__(self, model: bytes, inputs: list[tuple[str, str, list[str]]]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._run = session.run
        self._outputs = [session.get_outputs()[0].name]
        row = msgspec.defstruct("Row", [(name, _TYPES[kind] | None, None) for name, kind, _ in inputs])
        body = msgspec.defstruct("Body", [("inputs", list[row])])  # type: ignore[valid-type]
        self._decode = msgspec.json.Decoder(body).decode
        self._encode = msgspec.json.Encoder().encode
        self._codes = [
            (position, {text: float(code) for code, text in enumerate(texts)})
            for position, (_, kind, texts) in enumerate(inputs)
            if kind == "category"
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        cells = []
        for row in self._decode(body).inputs:  # type: ignore[attr-defined]
            values = list(msgspec.structs.astuple(row))
            for position, codes in self._codes:
                values[position] = codes.get(values[position], -1.0)
            cells.append(values)
        answer = self._run(self._outputs, {"inputs": np.array(cells, dtype=np.float32)})[0]
        encoded = self._encode({"predictions": answer.ravel().tolist()})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(encoded)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": encoded})


async def serve(app: Floor) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    gc.collect()
    gc.freeze()
    await task


def main(model: str, contract: str) -> None:
    app = Floor(Path(model).read_bytes(), json.loads(Path(contract).read_text()))
    uvloop.run(serve(app))


if __name__ == "__main__":
    main(*sys.argv[1:])
