"""KServe's own REST client against a server with the model `doubler`: `python kserve_client.py HTTP_PORT`.

Prints what it was told, as JSON.
"""

# mypy: ignore-errors

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

BASE = f"http://127.0.0.1:{sys.argv[1]}"
ROWS = np.array([[1.5, -2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)


async def asked(client, *, binary, request_id, model="doubler"):
    tensor = InferInput("x", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    request = InferRequest(
        model_name=model,
        infer_inputs=[tensor],
        request_id=request_id,
        request_outputs=None,
        parameters={"binary_data_output": binary},
    )
    answer = await client.infer(BASE, request, model_name=model)
    return [answer.id, answer.model_name, answer.outputs[0].as_numpy().tolist()]


async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=30))
    told = {
        "live": await client.is_server_live(BASE),
        "ready": await client.is_server_ready(BASE),
        "model ready": await client.is_model_ready(BASE, "doubler"),
        "answers": [
            await asked(client, binary=binary, request_id=f"{binary} {turn}")
            for binary in (False, True)
            for turn in range(3)
        ],
    }
    try:
        await asked(client, binary=False, request_id="a", model="cats")
    except httpx.HTTPStatusError as error:
        told["error"] = str(error)
    print(json.dumps(told))
    await client.close()


asyncio.run(main())
