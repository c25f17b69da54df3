"""Files and rows as Examples: what each spelling means, what a bad row is told, and that none goes missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from mingshi.data.formats import DataSource, read, read_rows
from mingshi.errors import DataError
from mingshi.types import Chat, Example, Labelled, Message, Preference, Reject

FIXTURES = Path(__file__).parent / "fixtures"
GOOD = {"instruction": "Name a colour.", "output": "Blue."}


def one(row: dict[str, Any], **settings: Any) -> Example:
    (example,) = read_rows([row], **settings)
    assert isinstance(example, Example)
    return example


def rejected(row: dict[str, Any], **settings: Any) -> Reject:
    (reject,) = read_rows([row], on_bad_row="skip", **settings)
    assert isinstance(reject, Reject), reject
    return reject


def turns(example: Example) -> list[tuple[str, str]]:
    assert isinstance(example, Chat)
    return [(message.role, message.content) for message in example.messages]


def fixture(name: str) -> list[Any]:
    return list(read(DataSource(path=str(FIXTURES / name))))


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), **fields}


ASK = {"role": "user", "content": "Why?"}
SAY = {"role": "assistant", "content": "Because."}


# What rows mean


def test_an_instruction_keeps_its_input_as_a_message_of_its_own() -> None:
    first, _, no_input, history, null_input = fixture("instruct.jsonl")
    assert turns(first) == [("user", "Translate into French."), ("input", "Good evening."), ("assistant", "Bonsoir.")]
    assert turns(no_input) == [("user", "Name three primary colours."), ("assistant", "Red, yellow and blue.")]
    assert [role for role, _ in turns(null_input)] == ["user", "assistant"]
    assert [role for role, _ in turns(history)] == ["system", "user", "assistant", "user", "assistant"]
    assert [message.train for message in history.messages] == [None, None, False, None, None]


def test_an_input_without_an_instruction_is_the_question() -> None:
    assert turns(one({"instruction": "", "input": "1+1", "output": "2"})) == [("user", "1+1"), ("assistant", "2")]


def test_answers_inside_a_prompt_are_not_trained() -> None:
    conversation = fixture("pairs.jsonl")[1]
    assert [message.train for message in conversation.messages] == [None, False, None, None]


def test_plain_text_keeps_every_space_and_is_one_row_a_line() -> None:
    examples = fixture("text.txt")
    assert [example.line for example in examples] == [1, 3, 4, 5, 6]
    assert [example.messages[0].content for example in examples][2:4] == [
        'A line with a "quote" and a comma, plain.',
        "  indented text keeps its spaces",
    ]
    assert all(example.plain for example in examples)


def test_openai_messages_keep_tools_reasoning_and_what_is_trained() -> None:
    sky, hangzhou, weather, maths, brief = fixture("chat.jsonl")
    assert sky.id == "sky" and hangzhou.messages[0].content == "你好，请介绍一下杭州。"
    assert [message.train for message in hangzhou.messages] == [None, None, None, False]
    call = weather.messages[1].tool_calls[0]
    assert call["function"] == {"name": "weather", "arguments": {"city": "Oslo", "day": None}}
    assert call["id"] == "call_1" == weather.messages[2].tool_call_id
    assert weather.messages[1].content == "" and weather.group == "weather"
    assert maths.messages[-1].reasoning == "十七乘以三，五十一。" and maths.messages[-1].train is True
    assert maths.messages[0] == Message(role="system", content="你是数学老师。")
    assert maths.attributes == {"language": "zh", "grade": "3"} and maths.id == "chat.jsonl:4"
    assert [role for role, _ in turns(brief)] == ["system", "user", "user", "assistant"]


def test_sharegpt_conversations_are_the_same_messages() -> None:
    river, _, theatre, other_spelling, _ = fixture("sharegpt.jsonl")
    assert turns(river) == [("user", "Name a river in France."), ("assistant", "The Loire.")]
    assert [role for role, _ in turns(theatre)] == ["user", "assistant", "tool", "assistant"]
    assert theatre.messages[1].tool_calls[0]["function"] == {"name": "programme", "arguments": {"place": "theatre"}}
    assert theatre.tools[0]["parameters"]["place"] == {"type": "string", "default": None}
    assert turns(other_spelling)[0] == ("system", "请用中文回答。")


def test_labels_are_classes_numbers_or_lists() -> None:
    labels = [example.label for example in fixture("labels.jsonl")]
    assert labels == [("sport", "news"), 3.5, "2", (), "true"]
    weights = [1.0, 0.25, 3.0]
    assert [one({"text": "t", "label": "a", "row_weight": told}).weight for told in (None, "0.25", 3)] == weights
    table = fixture("labelled.csv")
    assert [example.line for example in table] == [2, 3, 4, 5, 7]
    assert table[3].content == "他说：“还可以。”\n第二行。".replace("“", '"').replace("”", '"')


def test_the_prompt_of_two_conversations_is_what_they_share() -> None:
    egg, gravity, repeated, book, fact = fixture("preference.jsonl")
    assert isinstance(egg, Preference) and egg.prompt == (Message(role="user", content="How do I boil an egg?"),)
    assert gravity.prompt[0].role == "system"
    assert [len(pair.prompt) for pair in (repeated, book, fact)] == [1, 1, 3]
    assert [pair.rejected[0].content for pair in (repeated, book, fact)] == ["Yes.", "自己找。", "No."]
    assert all(len(pair.chosen) == len(pair.rejected) == 1 for pair in (repeated, book, fact))


def test_tool_schemas_survive_a_trip_through_arrow(tmp_path: Path) -> None:
    def row(name: str, **arguments: Any) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        tool = {
            "type": "function",
            "function": {"name": name, "parameters": {key: {"type": "string"} for key in arguments}},
        }
        return chat(ASK, {"role": "assistant", "content": None, "tool_calls": [call]}, tools=[tool])

    mixed = [row("weather", city="Oslo"), row("search", query="猫", limit="3"), chat(ASK, SAY)]
    lines, table = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    lines.write_text("\n".join(map(json.dumps, mixed)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(mixed), table)
    assert "None" in str(pyarrow.parquet.read_table(table).to_pylist())
    direct, stored = (list(read(DataSource(path=str(path)))) for path in (lines, table))
    for first, second in zip(direct, stored, strict=True):
        assert isinstance(first, Chat) and isinstance(second, Chat)
        assert (first.messages, first.tools, first.group) == (second.messages, second.tools, second.group)


def test_parquet_and_csv_hold_lists_as_json_text(tmp_path: Path) -> None:
    path = tmp_path / "chat.csv"
    quoted = json.dumps([ASK, SAY]).replace('"', '""')
    path.write_text(f'messages,system\n"{quoted}",Be kind.\n')
    (example,) = read(DataSource(path=str(path)))
    assert [role for role, _ in turns(example)] == ["system", "user", "assistant"]  # type: ignore[arg-type]


def test_other_column_names_are_mapped() -> None:
    row = {"Frage": "Wie viel?", "Antwort": "Drei.", "output": "not this one"}
    example = one(row, columns={"instruction": "Frage", "output": "Antwort"})
    assert turns(example) == [("user", "Wie viel?"), ("assistant", "Drei.")]
    swapped = one({"question": "a", "answer": "b"}, columns={"question": "answer", "answer": "question"})
    assert turns(swapped) == [("user", "b"), ("assistant", "a")]


def test_columns_of_fields_that_do_not_exist_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValidationError, match="Did you mean 'instruction'"):
        DataSource(path="x", columns={"instuction": "q"})
    with pytest.raises(ValidationError, match="two fields"):
        DataSource(path="x", columns={"prompt": "q", "completion": "q"})


def test_the_table_order_settles_rows_that_several_formats_could_read() -> None:
    assert isinstance(one({"prompt": "p", "chosen": "a", "rejected": "b", "messages": [ASK, SAY]}), Preference)
    assert isinstance(one({"text": "t", "label": "x"}), Labelled)
    assert turns(one({"prompt": "p", "completion": "c", "messages": [ASK, SAY]}))[0] == ("user", "Why?")


# Identity and groups


def test_ids_that_come_twice_get_their_line() -> None:
    ids = [example.id for example in read_rows([{**GOOD, "id": "a"}, {**GOOD, "id": 7}, {**GOOD, "id": "a"}, GOOD])]  # type: ignore[union-attr]
    assert ids == ["a", "7", "a~3", "rows:4"]


def test_the_same_question_is_one_group_whatever_its_spelling_and_format() -> None:
    question = one({"instruction": "Why is  the sky BLUE?", "output": "x"})
    same = [
        one({"instruction": "why is the sky blue？", "output": "other answer"}),
        one(
            chat(
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Why is the sky blue?"},
                SAY,
                ASK,
            )
        ),
        one({"prompt": "Why is the sky blue?", "chosen": "a", "rejected": "b"}),
    ]
    assert {example.group for example in same} == {question.group}
    assert one({"instruction": "Why is the sky blue?", "input": "At night.", "output": "x"}).group != question.group
    assert one({**GOOD, "group_id": 3}).group == "3"


# Bad rows


@pytest.mark.parametrize(
    ("row", "reason", "says"),
    [
        (chat(ASK), "no_answer", "no assistant message"),
        (chat(), "no_answer", "empty list"),
        (
            chat(ASK, {"role": "asistant", "content": "x"}),
            "unknown_role",
            "messages[1].role: unknown role 'asistant'. Did",
        ),
        (chat(ASK, {"role": "assistant", "content": " \n"}), "empty_answer", "messages[1]: an empty answer"),
        (chat(ASK, {"role": "assistant", "contnet": "x"}), "missing_field", "Rename 'contnet' to 'content'"),
        (chat(ASK, {"role": "assistant", "content": 5}), "wrong_type", "messages[1].content: a number, not text"),
        (chat(ASK, {**SAY, "train": "no"}), "wrong_type", "messages[1].train"),
        (chat(ASK, {**SAY, "weight": 0.5}), "wrong_type", "messages[1].weight"),
        (chat(ASK, {**SAY, "train": True, "loss": 0}), "contradiction", "disagree"),
        (chat({"role": "user", "content": [{"type": "image"}]}, SAY), "not_text", "type 'image'"),
        (chat({"role": "system", "content": "a"}, ASK, SAY, system="b"), "contradiction", "system"),
        (chat(ASK, SAY, tools="{"), "bad_json", "tools"),
        (chat(ASK, SAY, tools=["x"]), "wrong_type", "tools[0]: text, not an object"),
        (
            chat(ASK, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{oops"}}]}),
            "bad_tool_call",
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"messages": "[1]"}, "wrong_type", "messages[0]"),
        ({**GOOD, "output": ""}, "empty_answer", "output"),
        ({"instruction": " ", "output": "x"}, "empty_prompt", "instruction"),
        ({**GOOD, "history": [["a"]]}, "wrong_type", "history[0]: 1 texts, not 2"),
        ({**GOOD, "inputt": "x"}, "unknown_field", "Rename 'inputt' to 'input'"),
        ({**GOOD, "attributes": {"age": [1]}}, "wrong_type", "attributes.age"),
        ({**GOOD, "input": float("nan")}, "not_finite", "input"),
        ({**GOOD, "output": "half \ud83d"}, "bad_unicode", "position 5"),
        ({"text": "t", "label": float("inf")}, "not_finite", "label"),
        ({"text": "t", "label": {"a": 1}}, "wrong_type", "label: an object"),
        ({"text": "t", "label": " "}, "empty_answer", "label"),
        ({"text": " "}, "empty_text", "text"),
        ({"text": "t", "label": "a", "row_weight": 0}, "wrong_weight", "row_weight: not a number above 0"),
        ({"text": "t", "label": "a", "row_weight": "heavy"}, "wrong_weight", "row_weight"),
        ({"text": "t", "label": "a", "row_weights": 2.0}, "unknown_field", "Rename 'row_weights' to 'row_weight'"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "same_answers", "nothing to prefer"),
        ({"prompt": "p", "chosen": "a", "rejected": ""}, "empty_answer", "rejected"),
        ({"chosen": "a", "rejected": "b"}, "missing_field", "no 'prompt'"),
        ({"chosen": [ASK, SAY], "rejected": [{"role": "user", "content": "Who?"}, SAY]}, "no_shared_prompt", "chosen"),
    ],
)
def test_a_bad_row_is_told_where_what_and_how_to_mend_it(row: dict[str, Any], reason: str, says: str) -> None:
    reject = rejected(row)
    assert reject.reason == reason
    assert says in reject.detail and len(reject.detail) <= 240
    assert reject.detail.rstrip().endswith((".", "?"))


def test_an_empty_answer_that_the_row_does_not_train_is_kept() -> None:
    one(chat(ASK, {"role": "assistant", "content": "", "train": False}, ASK, SAY))


def test_no_long_text_of_the_data_is_echoed() -> None:
    secret = "confidential " * 50
    for row in (chat({"role": secret, "content": "x"}), {secret: "x"}, {**GOOD, "history": [[secret]]}):
        with pytest.raises(DataError) as caught:
            list(read_rows([row]))
        assert secret[:80] not in str(caught.value)
        assert all(len(str(problem)) <= 400 for problem in caught.value.problems)


def test_error_mode_names_the_first_twenty_rows_and_the_total(tmp_path: Path) -> None:
    path = tmp_path / "数据.jsonl"
    bad = {"instruction": "q", "output": ""}
    path.write_text("\n".join(json.dumps(bad if number % 2 else GOOD) for number in range(100)))
    with pytest.raises(DataError) as caught:
        list(read(DataSource(path=str(path))))
    problems = caught.value.problems
    assert [problem.line for problem in problems[:-1]] == list(range(2, 42, 2))
    assert "50 of 100 rows cannot be used" in str(problems[-1]) and "skip" in str(problems[-1])
    assert str(problems[0]).startswith(f"{path}:2: output: an empty answer.")


def test_error_mode_hands_out_nothing_after_the_first_bad_row() -> None:
    reading = read_rows([GOOD, {**GOOD, "output": ""}, GOOD])
    assert isinstance(next(reading), Chat)
    with pytest.raises(DataError, match=r"rows:2: .*\n.*1 of 3 rows"):
        next(reading)


def test_a_row_that_is_no_dictionary_is_counted() -> None:
    outcomes = list(read_rows([GOOD, 3], on_bad_row="skip"))  # type: ignore[list-item]
    assert [type(outcome) for outcome in outcomes] == [Chat, Reject]


def test_limit_reads_only_the_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD) + "\n{broken\n")
    assert len(list(read(DataSource(path=str(path), limit=2)))) == 2
