"""Conversations kept by LangChain and the OpenAI Agents SDK themselves, as `tests/clients/import` imports them.

    python memories.py CASE WHERE [UPSTREAM]

WHERE is the URL of a Redis or the path of a SQLite file. A case writes with the packages' own classes, reads
back what they give their own users, and prints `ok CASE`.
"""

import asyncio
import sys


def langchain_messages():
    """A conversation with instructions, a tool loop, a picture and what only some providers send."""
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    return [
        SystemMessage("You keep a kitchen."),
        HumanMessage("My name is Ada \U0001f469\u200d\U0001f373, and I am hungry."),
        AIMessage(
            "Hello, Ada!",
            id="run-1",
            response_metadata={
                "model_name": "m-1",
                "finish_reason": "stop",
                "token_usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            },
        ),
        HumanMessage("What is 2 + 3?"),
        AIMessage("", tool_calls=[{"id": "call_add", "name": "add", "args": {"a": 2, "b": 3}}]),
        ToolMessage("5", tool_call_id="call_add", name="add"),
        AIMessage([{"type": "text", "text": "It is 5."}, {"type": "thinking", "thinking": "hm", "signature": "s"}]),
        HumanMessage([{"type": "text", "text": "And this?"}, picture], name="ada"),
        AIMessage("A picture.", additional_kwargs={"refusal": None, "reasoning_content": "I look."}),
    ]


def langchain_lists(url):
    from langchain_community.chat_message_histories import RedisChatMessageHistory

    history = RedisChatMessageHistory("kitchen", url=url)
    history.add_messages(langchain_messages())
    RedisChatMessageHistory("not an id", url=url).add_user_message("hi")
    other = RedisChatMessageHistory("cellar", url=url, ttl=3600)
    other.add_user_message("one")
    other.add_ai_message("first")
    other.add_user_message("no reply to this yet")
    assert len(history.messages) == 9, history.messages


def langchain_goes_on(url):
    from langchain_community.chat_message_histories import RedisChatMessageHistory

    history = RedisChatMessageHistory("cellar", url=url)
    history.add_ai_message("second")
    history.add_user_message("three")
    history.add_ai_message("third")


def langchain_documents(url):
    """The layout of `langchain_redis`. Its documents need RedisJSON, which is there. Its own queries need the
    search module, which does not load into every server: creating the index is left out, and nothing else."""
    from langchain_redis import RedisChatMessageHistory
    from redisvl.exceptions import RedisSearchError
    from redisvl.index import SearchIndex

    def no_index(self, *_args, **_options):
        raise RedisSearchError("there is no search module")

    SearchIndex.info = no_index
    SearchIndex.create = lambda self, *args, **options: None
    history = RedisChatMessageHistory("kitchen", redis_url=url)
    history.add_messages(langchain_messages())
    for text, reply in [("four", "fourth"), ("five", "fifth")]:
        history.add_user_message(text)
        history.add_ai_message(reply)
    RedisChatMessageHistory("with:colons", redis_url=url).add_messages(langchain_messages()[:3])


async def run_agent(session, upstream):
    """The SDK's own loop, with a tool, against the scripted model."""
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)

    @function_tool
    def add(a: float, b: float) -> str:
        """Adds two numbers."""
        return f"{a + b:g}"

    client = AsyncOpenAI(base_url=upstream + "/v1", api_key="sk-test")
    model = OpenAIChatCompletionsModel(model="m", openai_client=client)
    agent = Agent(name="adder", instructions="Add.", model=model, tools=[add])
    for text in ["My name is Ada.", "2 + 3?"]:
        result = await Runner.run(agent, text, session=session)
    assert result.final_output == "It is 5.", result.final_output


# What the Responses API gives, and other things that a session may hold.
RESPONSES = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "input_text", "text": "Look: "},
                                 {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
    {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
     "content": [{"type": "output_text", "text": "I will ask.", "annotations": [], "logprobs": []}]},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{\"at\": 1}",
     "status": "completed"},
    {"type": "function_call", "id": "fc_2", "call_id": "call_2", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "a tower"},
    {"type": "function_call_output", "call_id": "call_2",
     "output": [{"type": "input_text", "text": "a door"}]},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
    {"type": "message", "id": "msg_2", "role": "assistant", "status": "completed",
     "content": [{"type": "output_text", "text": "A tower with a door.", "annotations": []}]},
]


async def agents_sqlite(path, upstream):
    from agents import SQLiteSession
    from agents.extensions.memory import AdvancedSQLiteSession, EncryptedSession

    await run_agent(SQLiteSession("adder", path), upstream)
    await SQLiteSession("responses", path).add_items(RESPONSES)
    secret = EncryptedSession("secret", SQLiteSession("secret", path), encryption_key="k" * 44)
    await secret.add_items(RESPONSES[:4])
    advanced = AdvancedSQLiteSession(session_id="branched", db_path=path, create_tables=True)
    await advanced.add_items([{"role": "user", "content": "one"}, {"role": "assistant", "content": "first"}])
    await advanced.add_items([{"role": "user", "content": "two"}, {"role": "assistant", "content": "second"}])
    await advanced.create_branch_from_turn(2)
    await advanced.add_items([{"role": "user", "content": "two'"}, {"role": "assistant", "content": "second'"}])
    assert len(await SQLiteSession("responses", path).get_items()) == len(RESPONSES)


async def agents_redis(url, upstream):
    from agents.extensions.memory import RedisSession

    session = RedisSession.from_url("adder", url=url)
    await run_agent(session, upstream)
    await session.close()
    session = RedisSession.from_url("responses", url=url, key_prefix="mine")
    await session.add_items(RESPONSES)
    await session.close()


CASES = {
    "langchain_lists": langchain_lists,
    "langchain_goes_on": langchain_goes_on,
    "langchain_documents": langchain_documents,
    "agents_sqlite": lambda *where: asyncio.run(agents_sqlite(*where)),
    "agents_redis": lambda *where: asyncio.run(agents_redis(*where)),
}

if __name__ == "__main__":
    case, *where = sys.argv[1:]
    CASES[case](*where)
    print(f"ok {case}")
