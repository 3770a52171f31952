"""Conversations through the official `openai` package for Python, as `tests/clients/sdk.rs` runs them.

    python cases.py CASE BASE_URL

Each case asserts what the client sees and prints `ok CASE`. The only change that a user makes is the default
header with the session id; what the upstream and the store saw is checked in Rust.
"""

import asyncio
import json
import sys
from http.cookiejar import CookieJar, DefaultCookiePolicy

from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            },
        },
    }
]


def options(url, session):
    headers = {"x-session-id": session} if session else {}
    return {"base_url": url + "/v1", "api_key": "sk-test", "default_headers": headers}


def user(text):
    return {"role": "user", "content": text}


def chat(url):
    """Three turns, each of which sends only its own message."""
    client = OpenAI(**options(url, "python-chat"))
    answers = [
        client.chat.completions.create(model="m", messages=[user(text)]).choices[0].message.content
        for text in ["one", "two", "three"]
    ]
    assert answers == [
        "You said 1 thing: one",
        "You said 2 things; the last was: two",
        "You said 3 things; the last was: three",
    ], answers


def stream(url):
    """The same with streams, by both of the package's interfaces, and with a usage chunk."""
    client = OpenAI(**options(url, "python-stream"))

    chunks = list(
        client.chat.completions.create(
            model="m", messages=[user("one")], stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "You said 1 thing: one", text
    assert chunks[-1].usage.total_tokens == 2, chunks[-1]

    with client.chat.completions.stream(model="m", messages=[user("two")]) as events:
        final = events.get_final_completion()
    text = final.choices[0].message.content
    assert text == "You said 2 things; the last was: two", text


def tool_loop(url):
    """The package has no runner for chat: the loop by hand, sending only the results, then everything."""
    client = OpenAI(**options(url, "python-tools"))
    first = client.chat.completions.create(model="m", messages=[user("2 + 3?")], tools=TOOLS)
    call = first.choices[0].message.tool_calls[0]
    arguments = json.loads(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": str(arguments["a"] + arguments["b"])}
    second = client.chat.completions.create(model="m", messages=[result], tools=TOOLS)
    assert second.choices[0].message.content == "It is 5.", second

    # The documented pattern: append the message object, and send the whole list.
    messages = [user("2 + 3?"), first.choices[0].message, result, second.choices[0].message, user("Sure?")]
    third = client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    text = third.choices[0].message.content
    assert text == "You said 2 things; the last was: Sure?", text


def asynchronous(url):
    """The asynchronous client: two sessions side by side, one of them streamed."""

    async def conversation(session, streamed):
        async with AsyncOpenAI(**options(url, session)) as client:
            answers = []
            for text in ["one", "two"]:
                if streamed:
                    chunks = await client.chat.completions.create(model="m", messages=[user(text)], stream=True)
                    parts = [c.choices[0].delta.content or "" async for c in chunks if c.choices]
                    answers.append("".join(parts))
                else:
                    reply = await client.chat.completions.create(model="m", messages=[user(text)])
                    answers.append(reply.choices[0].message.content)
            return answers

    async def both():
        return await asyncio.gather(conversation("python-async-a", False), conversation("python-async-b", True))

    expected = ["You said 1 thing: one", "You said 2 things; the last was: two"]
    answers = asyncio.run(both())
    assert answers == [expected, expected], answers


def headers_per_request(url):
    """The session by request instead of by client."""
    client = OpenAI(**options(url, None))
    for session in ["python-a", "python-b"]:
        for expected in ["You said 1 thing: hi", "You said 2 things; the last was: hi"]:
            reply = client.chat.completions.create(
                model="m", messages=[user("hi")], extra_headers={"x-session-id": session}
            )
            assert reply.choices[0].message.content == expected, (session, reply)


def close_at_done(url):
    """The upstream stays open after `[DONE]`; the client closes there, and asks again at once."""
    client = OpenAI(**options(url, "python-done"))
    for turn in range(1, 101):
        chunks = client.chat.completions.create(model="m", messages=[user(f"turn {turn}")], stream=True)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        expected = "You said 1 thing: turn 1" if turn == 1 else f"You said {turn} things; the last was: turn {turn}"
        assert text == expected, f"turn {turn}: {text}"


def retry_after_a_dropped_reply(url):
    """The first reply is dropped on its way; the package asks again by itself."""
    client = OpenAI(**options(url, "python-retry"), max_retries=2)
    reply = client.chat.completions.create(model="m", messages=[user("one")])
    assert reply.choices[0].message.content == "You said 1 thing: one", reply
    reply = client.chat.completions.create(model="m", messages=[user("two")])
    assert reply.choices[0].message.content == "You said 2 things; the last was: two", reply


def cookie_session(url):
    """No header at all: the proxy issues a session in a cookie, and the package's client keeps it."""

    def new_client():
        # The cookie is `Secure`: it goes over TLS, which ends in front of the proxy. Here is no TLS.
        policy = DefaultCookiePolicy(secure_protocols=("http", "https"))
        http_client = DefaultHttpxClient(cookies=CookieJar(policy))
        return OpenAI(**options(url, None), http_client=http_client)

    client = new_client()
    for expected in ["You said 1 thing: hi", "You said 2 things; the last was: hi"]:
        reply = client.chat.completions.create(model="m", messages=[user("hi")])
        assert reply.choices[0].message.content == expected, reply
    stranger = new_client()
    reply = stranger.chat.completions.create(model="m", messages=[user("hi")])
    assert reply.choices[0].message.content == "You said 1 thing: hi", reply


CASES = {
    "chat": chat,
    "stream": stream,
    "tool_loop": tool_loop,
    "asynchronous": asynchronous,
    "headers_per_request": headers_per_request,
    "close_at_done": close_at_done,
    "retry_after_a_dropped_reply": retry_after_a_dropped_reply,
    "cookie_session": cookie_session,
}

if __name__ == "__main__":
    case, base_url = sys.argv[1:]
    CASES[case](base_url)
    print(f"ok {case}")
