"""The official `openai` client against a running Baton: `openai_client.py BASE_URL MODEL [KEY]`.

Started by the test `api::the_official_openai_client_is_served`; with a key, which allows two requests a minute, by one in `keys`. Each function is one check; the first that fails ends
the script with its traceback.
"""

import json
import sys
import typing

import openai
import pydantic

QUESTION = [{"role": "user", "content": "Parcel 7 goes to Lisbon by train with Mira. Where does parcel 7 go?"}]


def models_are_listed(client, model):
    listed = client.models.list().data
    assert [entry.id for entry in listed] == [model], listed
    assert listed[0].object == "model" and client.models.retrieve(model).id == model


def a_chat_completion_has_text_and_exact_usage(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_completion_tokens=12, temperature=0)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == model and answer.id, answer
    assert choice.message.role == "assistant" and choice.message.content, choice
    assert choice.finish_reason in ("stop", "length"), choice
    usage = answer.usage
    assert 0 < usage.completion_tokens <= 12, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


def a_stream_says_the_same_as_the_whole_answer(client, model):
    asked = dict(model=model, messages=QUESTION, max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    spoken = [chunk for chunk in chunks if chunk.choices]
    assert spoken[0].choices[0].delta.role == "assistant", spoken[0]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in spoken)
    assert text == whole.choices[0].message.content, (text, whole)
    reasons = [chunk.choices[0].finish_reason for chunk in spoken if chunk.choices[0].finish_reason]
    assert reasons == [whole.choices[0].finish_reason], reasons
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage, (chunks[-1], whole.usage)
    assert all(chunk.usage is None for chunk in spoken), spoken
    assert {chunk.id for chunk in chunks} == {chunks[0].id}, "one id for the whole stream"


def usage_can_be_had_continuously(client, model):
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=8, temperature=0, stream=True, stream_options=options,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    counts = [chunk.usage.completion_tokens for chunk in stream]
    assert counts == sorted(counts) and counts[-1] == 8, counts


def log_probabilities_are_given_for_each_token(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    content = answer.choices[0].logprobs.content
    assert 0 < len(content) <= 6, content
    for entry in content:
        top = [candidate.logprob for candidate in entry.top_logprobs]
        assert len(top) == 3 and top == sorted(top, reverse=True), entry
        assert entry.logprob == top[0] <= 0, "greedy takes the most likely token"
    assert answer.choices[0].message.content == "".join(
        b"".join(bytes(entry.bytes) for entry in content).decode("utf-8", "replace")
    ) or answer.choices[0].finish_reason == "stop", answer


def legacy_log_probabilities(client, model):
    answer = client.completions.create(
        model=model, prompt="Parcel 7", max_tokens=5, temperature=0, logprobs=2, extra_body={"ignore_eos": True}
    )
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 5, logprobs
    assert len(logprobs.text_offset) == 5 and logprobs.text_offset == sorted(logprobs.text_offset), logprobs


def several_choices_in_one_answer(client, model):
    asked = dict(model=model, prompt="Parcel 7 goes to", max_tokens=8, n=2, temperature=1.0, seed=11)
    whole = client.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1], whole
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {choice.index: choice.text for choice in whole.choices}, "a seed gives the same choices again"
    assert whole.usage.completion_tokens <= 16


def a_stop_string_ends_the_text_before_it(client, model):
    asked = dict(model=model, prompt="Parcel 7 goes to Lisbon", max_tokens=32, temperature=0, extra_body={"ignore_eos": True})
    full = client.completions.create(**asked).choices[0].text
    stop = full[3:5]
    cut = client.completions.create(**asked, stop=[stop, "never said"]).choices[0]
    assert cut.text == full[: full.index(stop)] and cut.finish_reason == "stop", (full, cut)
    streamed = list(client.completions.create(**asked, stop=stop, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == cut.text, streamed


def an_unknown_model_is_not_found(client, model):
    try:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and "no-such-model" in error.message and model in error.message, error
    else:
        raise AssertionError("an unknown model was served")


def a_prompt_over_the_context_is_refused(client, model):
    try:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "parcel " * 20_000}])
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded" and "token" in error.message, error
    else:
        raise AssertionError("a prompt over the context was served")


def a_stream_can_be_cancelled(client, model):
    stream = client.completions.create(
        model=model, prompt="Parcel 7", max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
    )
    for _, _ in zip(range(3), stream):
        pass
    stream.close()


class Trip(pydantic.BaseModel):
    parcel: int = pydantic.Field(ge=1, le=99)
    city: typing.Literal["Lisbon", "Oslo"]
    by_boat: bool
    stops: list[typing.Annotated[str, pydantic.Field(max_length=8)]] = pydantic.Field(max_length=2)


TOOL = {
    "type": "function",
    "function": {
        "name": "send_parcel",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Lisbon", "Oslo"]}, "note": {"type": "string", "maxLength": 20}},
            "required": ["city", "note"],
            "additionalProperties": False,
        },
    },
}


def an_answer_is_parsed_into_the_clients_own_type(client, model):
    for seed in range(4):
        answer = client.chat.completions.parse(
            model=model, messages=QUESTION, response_format=Trip, temperature=1.5, seed=seed, max_tokens=400
        )
        assert isinstance(answer.choices[0].message.parsed, Trip), answer


def a_streamed_tool_call_says_the_same_as_the_whole_one(client, model):
    for seed in range(4):
        asked = dict(model=model, messages=QUESTION, tools=[TOOL], tool_choice="required", temperature=1.5, seed=seed, max_tokens=600)
        whole = client.chat.completions.create(**asked).choices[0]
        assert whole.finish_reason == "tool_calls" and whole.message.content is None, whole
        with client.chat.completions.stream(**asked) as stream:
            events = list(stream)
            final = stream.get_final_completion().choices[0]
        assert any(event.type == "tool_calls.function.arguments.delta" for event in events), events
        calls = [(call.function.name, call.function.arguments) for call in whole.message.tool_calls]
        assert calls == [(call.function.name, call.function.arguments) for call in final.message.tool_calls], final
        assert final.finish_reason == "tool_calls", final
        for name, arguments in calls:
            assert name == "send_parcel" and json.loads(arguments)["city"] in ("Lisbon", "Oslo"), calls


def a_bad_schema_is_refused_by_name(client, model):
    schema = {"name": "x", "schema": {"type": "objekt"}}
    try:
        client.chat.completions.create(
            model=model, messages=QUESTION, response_format={"type": "json_schema", "json_schema": schema}
        )
    except openai.BadRequestError as error:
        assert error.param == "response_format.json_schema.schema.type" and "objekt" in error.message, error
    else:
        raise AssertionError("a bad schema was served")


CHECKS = [
    models_are_listed,
    a_chat_completion_has_text_and_exact_usage,
    a_stream_says_the_same_as_the_whole_answer,
    usage_can_be_had_continuously,
    log_probabilities_are_given_for_each_token,
    legacy_log_probabilities,
    several_choices_in_one_answer,
    a_stop_string_ends_the_text_before_it,
    an_unknown_model_is_not_found,
    a_prompt_over_the_context_is_refused,
    a_stream_can_be_cancelled,
    an_answer_is_parsed_into_the_clients_own_type,
    a_streamed_tool_call_says_the_same_as_the_whole_one,
    a_bad_schema_is_refused_by_name,
]


def a_wrong_key_is_refused(client, model):
    try:
        client.with_options(api_key="sk-baton-wrong").models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key" and "wrong" not in error.message, error
    else:
        raise AssertionError("a wrong key was taken")


def a_key_opens_its_models_alone(client, model):
    assert [entry.id for entry in client.models.list().data] == [model]
    try:
        client.completions.create(model="another", prompt="Parcel 7")
    except openai.PermissionDeniedError as error:
        assert error.code == "model_not_allowed" and model in error.message, error
    else:
        raise AssertionError("another model was allowed")


def limits_are_told_and_kept(client, model):
    asked = dict(model=model, prompt="Parcel 7", max_tokens=2)
    answer = client.completions.with_raw_response.create(**asked)
    assert answer.headers["x-ratelimit-remaining-requests"] == "0", answer.headers
    assert answer.parse().usage.completion_tokens <= 2
    try:
        client.completions.create(**asked)
    except openai.RateLimitError as error:
        assert error.code == "requests_per_minute_exceeded", error
        assert 1 <= int(error.response.headers["retry-after"]) <= 30, error.response.headers
    else:
        raise AssertionError("a third request was served")


KEY_CHECKS = [a_wrong_key_is_refused, a_key_opens_its_models_alone, limits_are_told_and_kept]


def main():
    base_url, model, *key = sys.argv[1:]
    api_key = key[0] if key else "unused"
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key=api_key, max_retries=0, timeout=60) as client:
        for check in KEY_CHECKS if key else CHECKS:
            print(check.__name__, flush=True)
            check(client, model)


if __name__ == "__main__":
    main()
