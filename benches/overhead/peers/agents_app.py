"""FastAPI and the OpenAI Agents SDK with its RedisSession, as its documentation shows them.

One pool of connections to Redis and one to the model are shared by all requests, and nothing is traced or logged.
"""

import json
import os

from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner
from agents.extensions.memory import RedisSession
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai import AsyncOpenAI
from redis.asyncio import Redis

redis = Redis.from_url(os.environ["BENCH_REDIS"])
client = AsyncOpenAI(base_url=os.environ["BENCH_UPSTREAM"], api_key="sk-bench", max_retries=0)
agent = Agent(name="bench", model=OpenAIChatCompletionsModel(model="bench", openai_client=client))
quiet = RunConfig(tracing_disabled=True)
app = FastAPI()


def session(request):
    return RedisSession(session_id=request.headers["x-session-id"], redis_client=redis)


@app.post("/v1/chat/completions")
async def chat(request: Request):
    body = await request.json()
    message = body["messages"][-1]["content"]
    if body["stream"]:
        run = Runner.run_streamed(agent, message, session=session(request), run_config=quiet)
        return StreamingResponse(stream(run), media_type="text/event-stream")
    result = await Runner.run(agent, message, session=session(request), run_config=quiet)
    return JSONResponse({"choices": [{"index": 0, "message": {"role": "assistant", "content": result.final_output}}]})


async def stream(run):
    async for event in run.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            yield "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": event.data.delta}}]}) + "\n\n"
    yield "data: [DONE]\n\n"


@app.post("/seed")
async def seed(request: Request):
    def item(message):
        if message["role"] == "user":
            return message
        # As the SDK keeps a model's reply.
        text = {"annotations": [], "text": message["content"], "type": "output_text", "logprobs": []}
        return {
            "id": "__fake_id__",
            "content": [text],
            "role": "assistant",
            "status": "completed",
            "type": "message",
        }

    await session(request).add_items([item(message) for message in await request.json()])
    return {}
