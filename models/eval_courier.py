"""Scores `baton-courier` as a chat client would meet it.

    python models/eval_courier.py               # prints the table, writes EVAL.json

The saved bf16 weights are loaded through transformers, each prompt goes through
`apply_chat_template`, answers are greedy, and an answer counts only if it is
the expected sentence to the letter. The logs come from a seed that training
never used, and some tasks use wordings, names and cities that training never
showed.

The last two rows say what the model is worth as a probe. They wipe one 16-token
block of the KV cache between prefill and decode: the block that holds the
answer, or any other block of the log.
"""

import argparse
import json
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import courier_text as text

FOLDER = Path(__file__).parent / "baton-courier"
SEED = 777_000_001
BLOCK = 16
DISTANCES = [(0, 200), (200, 400), (400, 600), (600, 1000), (1000, 1500), (1500, 2000), (2000, 3000)]
TRAINED_DISTANCE = 2000
CONTEXT = 4000  # of the model, less an answer


class Desk:
    """The saved model behind the one call that a chat API offers."""

    def __init__(self, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def prompt(self, messages: list[dict]) -> list[int]:
        rendered = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return self.tokenizer.encode(rendered, add_special_tokens=False)

    @torch.inference_mode()
    def answer(self, messages: list[dict], wipe_block: int | None = None, limit: int = 96) -> str:
        """Greedy; with `wipe_block`, that block of the cache is zeroed before the last prompt token is read."""
        ids = torch.tensor([self.prompt(messages)])
        cache = None
        if wipe_block is not None:
            cache = self.model(ids[:, :-1], use_cache=True).past_key_values
            for layer in cache.layers:
                layer.keys[:, :, wipe_block * BLOCK : (wipe_block + 1) * BLOCK] = 0
                layer.values[:, :, wipe_block * BLOCK : (wipe_block + 1) * BLOCK] = 0
        out = self.model.generate(ids, past_key_values=cache, max_new_tokens=limit, do_sample=False)
        return self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def user(content: str) -> list[dict]:
    return [{"role": "user", "content": content}]


# --- Tasks: each makes one (messages, expected answer) ------------------------


def log_of(rng: Random, parcels: int, words=text.FAMILIAR_WORDS, **kind) -> text.Log:
    return text.make_log(rng, parcels, words, **kind)


def about(rng: Random, log: text.Log, question: str) -> list[dict]:
    return user(text.lay_out(rng, log) + " " + question)


def core_question(rng: Random, log: text.Log, **kind) -> tuple[str, str]:
    field = rng.choice(("city", "mode", "courier"))
    return text.ask_attribute(rng, rng.choice([p for p in log.parcels if getattr(p, field)]), field, **kind)


def at_distance(desk: Desk, rng: Random, low: int, high: int) -> tuple[list[dict], str]:
    """A question about a fact whose sentence ends `low` to `high` tokens before the end of the prompt."""
    while True:
        log = log_of(rng, max(4, int(high * rng.uniform(1.0, 1.2) / 16)), rich=rng.random() < 0.5)
        p, field = rng.choice(log.parcels), rng.choice(("city", "mode", "courier"))
        if not getattr(p, field):
            continue
        question, answer = text.ask_attribute(rng, p, field)
        messages = about(rng, log, text.user_wording(rng, question))
        content = messages[0]["content"]
        line = next(t for n, t in zip(log.subject, log.lines) if n == p.number and getattr(p, field) in t)
        behind = content[content.index(line) + len(line) :]
        distance = len(desk.tokenizer.encode(behind, add_special_tokens=False)) + 5  # <|im_end|> and the next lead
        if low <= distance < high and len(desk.prompt(messages)) < CONTEXT:
            return messages, answer


def medium(rng: Random) -> int:
    return rng.randint(8, 50)


def task_wording(rng):
    log = log_of(rng, medium(rng))
    q, a = core_question(rng, log, held_out=True)
    return about(rng, log, q), a


def task_words(rng):
    log = log_of(rng, rng.randint(5, 12), text.HELD_OUT_WORDS, rich=False)
    q, a = core_question(rng, log)
    return about(rng, log, q), a


def task_extra(rng):
    while True:
        log = log_of(rng, medium(rng), rich=True)
        told = [(p, k) for p in log.parcels for k in ("time", "item", "code") if getattr(p, k)]
        if told:
            q, a = text.ask_attribute(rng, *rng.choice(told))
            return about(rng, log, q), a


def task_describe(rng):
    log = log_of(rng, medium(rng))
    p = rng.choice(log.parcels)
    return about(rng, log, rng.choice(text.ALL_ABOUT).format(n=p.number)), text.describe(p)


def task_missing(rng):
    log = log_of(rng, medium(rng))
    q, a = text.ask_missing(rng, log)
    return about(rng, log, q), a


def task_not_by_number(rng):
    log = log_of(rng, medium(rng))
    q, a = text.ask_otherwise(rng, rng.choice(log.parcels))
    return about(rng, log, q), a


def task_two(rng):
    log = log_of(rng, medium(rng), rich=False)
    if rng.random() < 0.5:
        q, a = text.ask_pair(rng, *rng.sample(log.parcels, 2))
    else:
        p = rng.choice(log.parcels)
        q, wanted = rng.choice(text.ASK_TWO)
        q, a = q.format(n=p.number), f"Parcel {p.number} {text.core(p, wanted)}."
    return about(rng, log, q), a


def task_small_talk(rng):
    q, a = text.small_talk(rng)
    return user(text.vary_chat(rng, q)), a


TASKS = {
    "question wordings never seen": task_wording,
    "names and cities never seen": task_words,
    "times, contents, lock codes": task_extra,
    "everything about one parcel": task_describe,
    "two facts in one answer": task_two,
    "parcel not in the log": task_missing,
    "declines what is not asked by number": task_not_by_number,
    "greetings and who-are-you": task_small_talk,
}


def many_turns(desk: Desk, rng: Random, turns: int = 6) -> tuple[int, int]:
    """One conversation in which the model sees its own earlier answers."""
    log = log_of(rng, rng.randint(8, 30), rich=False)
    messages, right = user(text.lay_out(rng, log)), 0
    messages.append({"role": "assistant", "content": text.NOTED})
    for _ in range(turns):
        q, expected = core_question(rng, log)
        messages += user(text.user_wording(rng, q))
        said = desk.answer(messages)
        messages.append({"role": "assistant", "content": said})
        right += said == expected
    return right, turns


def wiped(desk: Desk, rng: Random, where: str) -> bool:
    """Is the answer right when one block of the cache is gone?"""
    while True:
        log = log_of(rng, 36, rich=False)
        p = rng.choice(log.parcels)
        if sum(q.city == p.city for q in log.parcels) == 1:
            break
    messages = about(rng, log, f"Where does parcel {p.number} go?")
    ids = desk.prompt(messages)
    line = next(t for n, t in zip(log.subject, log.lines) if n == p.number)
    offsets = desk.tokenizer(
        desk.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False),
        add_special_tokens=False,
        return_offsets_mapping=True,
    )["offset_mapping"]
    rendered = desk.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    start = rendered.index(line)
    value = start + line.index(p.city)
    inside = {i // BLOCK for i, (a, b) in enumerate(offsets) if a < start + len(line) and b > start}
    holding = next(i // BLOCK for i, (a, b) in enumerate(offsets) if a <= value < b)
    # blocks before the question, leaving out the first one, where the conversation's own frame lies
    others = [b for b in range(1, len(ids) // BLOCK - 3) if b not in inside]
    block = holding if where == "answer" else rng.choice(others)
    return desk.answer(messages, wipe_block=block) == f"Parcel {p.number} goes to {p.city}."


# --- The table ---------------------------------------------------------------


def evaluate(folder: Path, count: int, failures: list | None = None) -> dict:
    desk = Desk(folder)
    scores: dict[str, dict] = {"recall_by_distance": {}, "tasks": {}, "one_block_wiped": {}}

    def note(group: str, name: str, right: int, asked: int):
        scores[group][name] = {"right": right, "asked": asked, "percent": round(100 * right / asked, 1)}
        print(f"{name:<40} {right:>4} of {asked:<4} {100 * right / asked:5.1f} %", flush=True)

    def run(group: str, name: str, make):
        right = 0
        for i in range(count):
            messages, expected = make(Random(f"{SEED} {name} {i}"))
            said = desk.answer(messages)
            right += said == expected
            if said != expected and failures is not None:
                failures.append((name, messages[-1]["content"], expected, said))
        note(group, name, right, count)

    for low, high in DISTANCES:
        beyond = " (longer than trained)" if low >= TRAINED_DISTANCE else ""
        run("recall_by_distance", f"fact {low} to {high} tokens back{beyond}", lambda r: at_distance(desk, r, low, high))
    for name, make in TASKS.items():
        run("tasks", name, make)

    off_topic = text.HELD_OUT_OFF_TOPIC
    declined = sum(desk.answer(user(q)) == text.DECLINE for q in off_topic)
    note("tasks", "declines off-topic questions never seen", declined, len(off_topic))
    talks = [many_turns(desk, Random(f"{SEED} turns {i}")) for i in range(count // 6 + 1)]
    note("tasks", "six turns in a row", sum(r for r, _ in talks), sum(n for _, n in talks))
    for where, name in (("answer", "right although the answer's block is gone"), ("other", "right when another block is gone")):
        note("one_block_wiped", name, sum(wiped(desk, Random(f"{SEED} wipe {i}"), where) for i in range(count)), count)
    return scores


EXAMPLES = [
    "Hello",
    "Who are you?",
    "What can you do?",
    "What is the capital of France?",
    "Parcel 7 goes to Lisbon by train with Mira. Parcel 12 goes to Oslo by boat with Tomas. Where does parcel 12 go?",
    "Parcel 7 goes to Lisbon by train with Mira. Parcel 12 goes to Oslo by boat with Tomas. Who carries parcel 7?",
    "Parcel 7 goes to Lisbon by train with Mira. Parcel 12 goes to Oslo by boat with Tomas. Where does parcel 99 go?",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--count", type=int, default=120, help="questions in each row of the table")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--failures", action="store_true", help="print the wrong answers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    failures = [] if args.failures else None
    scores = evaluate(args.model, args.count, failures)
    desk = Desk(args.model)
    scores["examples"] = {q: desk.answer(user(q)) for q in EXAMPLES}
    for question, answer in scores["examples"].items():
        print(f"> {question}\n  {answer}")
    for name, content, expected, said in failures or []:
        print(f"--- {name}\n…{content[-90:]}\n  expected {expected}\n  said     {said}")
    (args.model / "EVAL.json").write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    main()
