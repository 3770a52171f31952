"""FastAPI, LangChain's RunnableWithMessageHistory and RedisChatMessageHistory, as their documentation shows them.

One connection to Redis and one to the model are shared by all requests, and nothing is logged.
"""

import copy
import json
import os

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from langchain_community.chat_message_histories import RedisChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_openai import ChatOpenAI

TEMPLATE = RedisChatMessageHistory("template", url=os.environ["BENCH_REDIS"])


def history(session_id):
    # A history of its own would connect anew for each request.
    own = copy.copy(TEMPLATE)
    own.session_id = session_id
    return own


model = ChatOpenAI(
    model="bench", base_url=os.environ["BENCH_UPSTREAM"], api_key="sk-bench", max_retries=0, stream_usage=False
)
chain = RunnableWithMessageHistory(model, history)
app = FastAPI()


@app.post("/v1/chat/completions")
async def chat(request: Request):
    body = await request.json()
    message = [HumanMessage(body["messages"][-1]["content"])]
    config = {"configurable": {"session_id": request.headers["x-session-id"]}}
    if body["stream"]:
        return StreamingResponse(stream(message, config), media_type="text/event-stream")
    reply = await chain.ainvoke(message, config=config)
    return JSONResponse({"choices": [{"index": 0, "message": {"role": "assistant", "content": reply.content}}]})


async def stream(message, config):
    async for chunk in chain.astream(message, config=config):
        yield "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": chunk.content}}]}) + "\n\n"
    yield "data: [DONE]\n\n"


@app.post("/seed")
async def seed(request: Request):
    kinds = {"user": HumanMessage, "assistant": AIMessage}
    messages = [kinds[message["role"]](message["content"]) for message in await request.json()]
    history(request.headers["x-session-id"]).add_messages(messages)
    return {}
