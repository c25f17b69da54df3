"""Personal data and hidden characters are found, what only looks like them is not, and nothing is shown in full."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from mingshi.checks import safety_rules
from mingshi.checks.rows import Row
from mingshi.checks.safety import RULES, TOLD, Safety, read_words
from mingshi.errors import DataError
from mingshi.types import Finding

IDENTITY = "11010519491231002X"  # the example of GB 11643-1999


def checked(*texts: str, words: tuple[str, ...] = ()) -> list[Finding]:
    check = Safety(words)
    for line, text in enumerate(texts, start=1):
        check.add(Row(split="train", source="a.jsonl", line=line, id=str(line), group="", prompt=text, answer="好"))
    return check.findings()


def kinds(text: str) -> set[str]:
    return {kind for kind, rule in RULES.items() if list(rule(text))}


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("email", ["write to li.wei+job@mail.zju.edu.cn.", "邮箱是zhang_san@163.com，谢谢"]),
        (
            "phone",
            [
                "电话13987650321。",
                "+86 139-1234-5678",
                "010-62781234",
                "+44 20 7946 0958",
                "(212) 736-5000",
                "212-736-5000",
            ],
        ),
        ("identity_number", [f"身份证号：{IDENTITY}", f"id {IDENTITY.lower()},"]),
        ("bank_card", ["4539 1488 0343 6467", "卡号6222021234567890128", "3782-822463-10005"]),
        (
            "key",
            [
                "sk-" + "a1B2" * 8,
                "sk-proj-" + "a1B2_" * 8,
                "AKIA" + "ABCD" * 4,
                "ghp_" + "a1B2" * 9,
                "-----BEGIN RSA PRIVATE KEY-----",
                "-----BEGIN PRIVATE KEY-----",
            ],
        ),
        (
            "control_token",
            [
                "bye<|im_end|>",
                "[INST] hi [/INST]",
                "the end</s>",
                "<<SYS>>",
                "<start_of_turn>user",
                "<｜User｜>",
                "a [MASK]",
            ],
        ),
        (
            "invisible",
            ["zero\u200bwidth", "\u202egnp.exe", "\ufeffmark", "soft\u00adhyphen", "bell\x07", "tag\U000e0041"],
        ),
    ],
)
def test_what_is_looked_for_is_found(kind: str, texts: list[str]) -> None:
    assert [text for text in texts if kind not in kinds(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "mail user@example.com or root@localhost, see @property and a@b",
        "call 555-0123 or (212) 555-0123, 12345678901, 13800000000",
        "2024-01-15 10:30:00, version 1.2.3.4, pi 3.14159265358979, 1,234,567,890",
        "订单号 20240115103000123456，编号1390000000012345",
        f"{IDENTITY[:-1]}1 110105194913310021 {IDENTITY}7",
        "4111 1111 1111 1112 and 1234567812345670",
        "sk-learn, AKIA, ghp_short, eyJ, task-" + "a1B2" * 8,
        "a < b | c > d, <b>bold</b>, <s>struck</s>, [1], <table>, x[mask]",
        "tab\t, line\nfeed\r\n, family 👨‍👩‍👧, 🏴󠁧󠁢󠁥󠁮󠁧󠁿, क्‍ष, می‌خواهم, full　width",
    ],
)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    assert kinds(text) == set()


def test_check_digits_refuse_nine_numbers_of_ten() -> None:
    """Of numbers that are right but for the last digit."""
    generator = random.Random(0)
    cards = [f"62220212345678{generator.randrange(100_000):05}" for _ in range(2000)]
    found = sum("bank_card" in kinds(card) for card in cards)
    assert 0.07 < found / len(cards) < 0.13
    people = [
        f"1101051990010{generator.randrange(10)}{generator.randrange(1000):03}{digit}" for digit in "0123456789X" * 50
    ]
    right = sum("identity_number" in kinds(person) for person in people)
    assert 0.05 < right / len(people) < 0.13


@pytest.mark.parametrize("number", ["79927398713", "4539148803436467", "378282246310005"])
def test_luhn_by_its_published_examples(number: str) -> None:
    digits = [int(each) for each in number]
    assert safety_rules.luhn(digits)
    assert not any(safety_rules.luhn([*digits[:-1], (digits[-1] + step) % 10]) for step in range(1, 10))


def test_findings_never_show_personal_data_or_keys() -> None:
    secrets = ["zhang_san@163.com", "13987650321", IDENTITY, "4539 1488 0343 6467", "AKIA" + "ABCD" * 4]
    found = checked(*(f"看 {secret} 这里" for secret in secrets))
    assert {finding.kind for finding in found} == {"email", "phone", "identity_number", "bank_card", "key"}
    told = json.dumps([[f.message, f.evidence, list(f.rows), f.remedy] for f in found], ensure_ascii=False)
    for secret in secrets:
        assert secret not in told
        assert secret[len(secret) // 4 : -len(secret) // 4] not in told
    assert '"text": "1*********1"' in told


def test_a_private_key_is_named_and_nothing_of_it_shown() -> None:
    (found,) = checked("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE")
    assert found.severity == "error"
    assert found.evidence["examples"][0]["text"] == "-----BEGIN … PRIVATE KEY-----"


def test_rows_are_counted_once_and_what_they_hold_each_time() -> None:
    clean = ["nothing to see"] * 300
    (found,) = checked("13987650321 and 13987650322", *clean)
    assert found.message == "1 of 301 rows have telephone numbers (2 in all)"
    assert (found.severity, found.count, list(found.rows)) == ("note", 1, [{"source": "a.jsonl", "line": 1}])
    (often,) = checked(*["13987650321"] * 5, *clean)
    assert often.severity == "warning"


def test_the_system_turn_is_looked_at_too() -> None:
    check = Safety()
    check.add(Row(split="test", source="a", line=1, id="1", group="", prompt="a", answer="b", system="ask li@163.com"))
    assert [finding.kind for finding in check.findings()] == ["email"]


def test_invisible_characters_are_named() -> None:
    (found,) = checked("pass\u200bword")
    assert found.evidence["examples"][0]["text"] == "U+200B ZERO WIDTH SPACE"


def test_offensive_words_are_those_of_the_given_list() -> None:
    assert checked("a darn classic, 混账东西") == []
    (found,) = checked("Darn it", "a darning needle", "你这混账东西", "darn, darn", words=("darn", "混账"))
    assert (found.kind, found.count) == ("offensive", 3)
    assert found.message.endswith("(4 in all)")
    assert [row["line"] for row in found.rows] == [1, 3, 4]


def test_a_list_is_read_without_comments(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# mine\n\n darn \n混账\n", encoding="utf-8")
    assert read_words(path) == ["darn", "混账"]
    with pytest.raises(DataError, match=r"missing\.txt"):
        read_words(tmp_path / "missing.txt")


def test_every_kind_can_be_told() -> None:
    assert set(TOLD) == {*RULES, "offensive"}
