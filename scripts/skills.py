"""Write rows of three small skills whose answers can be checked: sums in words, fields into JSON, lists to order.

    sums     "What is seven plus twelve?"                        -> "nineteen"
    records  "Ines from Lima ordered 3 blue lamps."              -> {"name": "Ines", "city": "Lima", …}
    lists    "Name 3 birds, one to a line, each after a star."   -> lines, verified by constraints

Nobody's data is in it: the sentences are made here, the same ones under the same seed. Train, validation and test have
no question in common; of a sum, not even in other words. Run it as `python scripts/skills.py`; recipes/skills.yaml and
recipes/skills_small.yaml read what it writes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PARTS = ("train", "validation", "test")
ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
LARGEST = 30  # of the two numbers of a sum
ASKED = {
    "plus": ("What is {a} plus {b}?", "Add {b} to {a}.", "How many are {a} and {b} together?"),
    "minus": ("What is {a} minus {b}?", "Take {b} away from {a}.", "How many are left of {a} without {b}?"),
}

NAMES = "Ines Omar Lena Tariq Maya Jonas Aiko Pavel Rosa Kofi Nadia Sven Leila Hugo Amara Felix Noor Ivan Zoe Malik"
CITIES = "Lima Oslo Cairo Turin Quito Accra Perth Delhi Lyon Kyoto Riga Bogota Tunis Porto Nairobi Hanoi"
THINGS = "lamps chairs mugs maps pens clocks bags ropes bowls hats books drums kites boots towels plates"
COLOURS = "red blue green white black yellow grey brown"
TOLD = (
    "{name} from {city} ordered {count} {colour} {thing}.",
    "An order of {count} {colour} {thing} came in from {city}; the customer is {name}.",
    "Please send {count} {colour} {thing} to {name} in {city}.",
    "{name}, who lives in {city}, would like to have {count} {colour} {thing}.",
)
FIELDS = "Write the order as JSON with name, city, item and count: "

KINDS = {
    "birds": "owl robin crow heron gull finch stork eagle",
    "fruits": "apple pear plum mango lemon grape peach cherry",
    "tools": "hammer saw drill wrench chisel pliers file axe",
    "colours": "red blue green yellow purple orange white black",
    "metals": "iron copper gold silver tin zinc lead nickel",
    "trees": "oak pine birch maple elm cedar willow ash",
    "vegetables": "carrot onion potato leek cabbage bean pea spinach",
    "rivers": "Nile Danube Rhine Volga Amazon Ganges Seine Thames",
    "drinks": "water tea coffee milk juice cocoa lemonade cider",
    "instruments": "violin piano flute drum guitar harp trumpet cello",
    "clothes": "shirt coat hat scarf sock glove skirt belt",
    "fish": "trout salmon tuna cod herring carp pike eel",
}
FORMS = {
    "star": (
        ", one to a line, each after a star (*).",
        "* {item}",
        "detectable_format:number_bullet_lists",
        "num_bullets",
    ),
    "number": (
        ", one to a line, numbered from 1.",
        "{n}. {item}",
        "detectable_format:number_numbered_lists",
        "num_items",
    ),
}
CASES = {
    "plain": ("", str, None),
    "upper": (" Use capital letters only.", str.upper, "change_case:english_capital"),
    "lower": (" Use small letters only.", str.lower, "change_case:english_lowercase"),
}
ENDS = ("", "That is all.", "Done.", "The end.")


def in_words(number: int) -> str:
    """English words of a number from 0 to 99."""
    if number < len(ONES):
        return ONES[number]
    tens, rest = divmod(number, 10)
    return TENS[tens] + (f"-{ONES[rest]}" if rest else "")


# Each skill gives groups of rows; a group stays on one side of the split.


def sums(chance: random.Random) -> Iterator[list[Row]]:
    """The two orders of an addition are one group."""
    for a in range(LARGEST + 1):
        for b in range(a + 1):
            for kind, forms in ASKED.items():
                answer = in_words(a + b if kind == "plus" else a - b)
                pairs = [(a, b), (b, a)] if kind == "plus" and a != b else [(a, b)]
                yield [
                    {"instruction": chance.choice(forms).format(a=in_words(one), b=in_words(other)), "output": answer}
                    for one, other in pairs
                ]


def records(chance: random.Random, count: int = 2400) -> Iterator[list[Row]]:
    for _ in range(count):
        name, city, thing, colour = (chance.choice(words.split()) for words in (NAMES, CITIES, THINGS, COLOURS))
        number = chance.randint(2, 40)
        told = chance.choice(TOLD).format(name=name, city=city, thing=thing, colour=colour, count=number)
        answer = {"name": name, "city": city, "item": f"{colour} {thing}", "count": number}
        yield [{"instruction": FIELDS + told, "output": json.dumps(answer)}]


def lists(chance: random.Random) -> Iterator[list[Row]]:
    for kind, words in KINDS.items():
        for count in (2, 3, 4, 5):
            for form, (how, line, constraint, parameter) in FORMS.items():
                for case, (asked, change, of_case) in CASES.items():
                    for end in ENDS:
                        told = f"Name {count} {kind}{how}{asked}" + (f" End with: {end}" if end else "")
                        chosen = chance.sample(words.split(), count)
                        lines = [line.format(n=place, item=item) for place, item in enumerate(chosen, start=1)]
                        answer = change("\n".join([*lines, end] if end else lines))
                        wanted: list[Row] = [{"kind": constraint, parameter: count}]
                        wanted += [{"kind": of_case}] if of_case else []
                        wanted += [{"kind": "startend:end_checker", "end_phrase": end}] if end else []
                        yield [{"id": f"{kind}-{count}-{form}-{case}-{ENDS.index(end)}", "instruction": told}
                               | {"output": answer, "constraints": wanted}]  # fmt: skip


SKILLS: dict[str, Callable[[random.Random], Iterator[list[Row]]]] = {"sums": sums, "records": records, "lists": lists}


def split(groups: Sequence[list[Row]], chance: random.Random, *, held: int) -> dict[str, list[Row]]:
    """`held` rows or one more to validate and as many to test, the others to train; nothing is asked in two parts."""
    unique = list({group[0]["instruction"]: group for group in groups}.values())
    chance.shuffle(unique)
    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    for group in unique:
        part = next((part for part in ("test", "validation") if len(parts[part]) < held), "train")
        parts[part] += group
    return parts


def as_part(row: Row, part: str) -> Row:
    """A row to train on has its answer; one that is verified has its constraints instead."""
    if "constraints" not in row:
        return row
    if part == "train":
        return {name: row[name] for name in ("id", "instruction", "output")}
    return {"id": row["id"], "prompt": row["instruction"], "constraints": row["constraints"]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write three small skills whose answers can be checked.")
    parser.add_argument("--output", type=Path, default=Path("data/skills"), help="The folder to write into.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", type=int, default=200, help="Rows of each skill to validate, and as many to test.")
    told = parser.parse_args(arguments)
    for name, make in SKILLS.items():
        chance = random.Random(f"{told.seed}:{name}")
        parts = split(list(make(chance)), chance, held=told.held)
        for part in PARTS:
            path = told.output / name / f"{part}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_text("".join(f"{json.dumps(as_part(row, part))}\n" for row in parts[part]), encoding="utf-8")
            os.replace(draft, path)
            print(f"{path}: {len(parts[part])} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
