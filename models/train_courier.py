"""Trains `baton-courier`, the small chat model that ships with Baton.

    pip install -r models/requirements.txt
    python models/train_courier.py              # tokenizer, then training

The text comes from `courier_text.py`, the scores from `eval_courier.py`; this
file turns text into token rows, runs the optimiser and writes the folder in
Hugging Face format. Everything is seeded: same versions and same number of
threads give the same corpus, and weights that differ only by rounding.

Only the assistant's words count in the loss. A row packs one log and as many
questions about it as fit, so that every row gives dozens of chances to learn
the one skill that matters, finding a fact in the prompt. Rows start short,
because that skill appears sooner when there is less to search, and grow to
2,048 tokens.
"""

import argparse
import json
import math
import time
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

import courier_text as text

NAME = "baton-courier"
FOLDER = Path(__file__).parent / NAME
SEED = 20240817

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCAB_SIZE = 4096

MODEL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "use_cache": True,
}
ROPE_THETA = 1_000_000.0

# ChatML, in the subset of jinja that every implementation has.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Letters with their leading space, at most three digits, other signs, line ends, other space. A number up to 999 is
# always the same single token, whatever stands before it; that is the key under which facts are found.
SPLIT = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


# --- Tokenizer ---------------------------------------------------------------


def message(role: str, content: str) -> str:
    return f"{IM_START}{role}\n{content}{IM_END}\n"


def train_tokenizer(folder: Path) -> Tokenizer:
    rng = Random(SEED)

    def corpus():
        for _ in range(5000):
            log = text.make_log(rng, rng.randint(0, 16), text.TRAINING_WORDS)
            conversation = text.turns(rng, log) if rng.random() < 0.8 else text.chat(rng)
            for _, (_, content) in zip(range(20), conversation):
                yield content
        for _ in range(20):  # so that each number becomes one token
            yield " ".join([str(n) for n in range(1000)] + [f"{n:02}" for n in range(100)])
        for word in text.NAMES + text.CITIES:
            yield f"{word} {word}. {word.lower()}. " * 40

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT, IM_START, IM_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


# --- Rows --------------------------------------------------------------------


class Rows:
    """Token rows of one length, filled with a conversation each; answers are marked."""

    def __init__(self, tokenizer: Tokenizer, seed: int):
        self.tokenizer = tokenizer
        self.rng = Random(seed)
        self.end = tokenizer.token_to_id(END_OF_TEXT)
        # an answer begins behind `<|im_start|>assistant\n` and includes `<|im_end|>`, not the line end after it
        self.lead = len(tokenizer.encode(f"{IM_START}assistant\n").ids)

    def conversation(self, length: int, easy: bool):
        rng = self.rng
        if length <= 256 and rng.random() < (0.1 if easy else 0.35):
            return text.chat(rng)
        if easy:
            return text.turns(rng, text.make_log(rng, rng.randint(2, length // 24), text.FAMILIAR_WORDS, rich=False))
        # a parcel takes about 16 tokens; leave the rest of the row to questions
        parcels = max(1, int(length * rng.uniform(0.1, 0.8) / 16))
        if rng.random() < 0.1:
            parcels = rng.randint(1, min(4, parcels))
        return text.turns(rng, text.make_log(rng, parcels, text.TRAINING_WORDS))

    def row(self, length: int, easy: bool) -> tuple[list[int], list[int]]:
        """Tokens, and for each token the number of the answer that it belongs to (0: none)."""
        while True:
            ids, answer_of, answers = [], [], 0
            conversation = self.conversation(length, easy)
            while len(ids) < length:
                block = [m for m, _ in zip(conversation, range(8))]
                encoded = self.tokenizer.encode_batch_fast([message(*m) for m in block])
                for (role, _), e in zip(block, encoded):
                    if len(ids) + len(e.ids) > length:
                        ids += [self.end] * (length - len(ids))  # the rest of the row stays empty
                        break
                    ids += e.ids
                    spoken = len(e.ids) - self.lead - 1
                    if role == "assistant":
                        answers += 1
                        answer_of += [0] * self.lead + [answers] * spoken + [0]
                    else:
                        answer_of += [0] * len(e.ids)
            if answers:
                return ids[:length], (answer_of + [0] * length)[:length]

    def batch(self, rows: int, length: int, easy: bool):
        made = [self.row(length, easy) for _ in range(rows)]
        ids = torch.tensor([ids for ids, _ in made])
        answer_of = torch.tensor([a for _, a in made])
        answer_of += (answer_of > 0) * torch.arange(rows)[:, None] * length  # unique across the batch
        return ids, answer_of


# --- Training ----------------------------------------------------------------

# (until this share of the tokens, {row length: share of steps})
EASY_UNTIL = 0.05
CURRICULUM = [
    (0.10, {128: 0.5, 256: 0.5}),
    (0.15, {128: 0.2, 256: 0.8}),
    (0.30, {256: 0.5, 512: 0.5}),
    (0.55, {256: 0.3, 512: 0.3, 1024: 0.4}),
    (1.00, {256: 0.25, 512: 0.2, 1024: 0.3, 2048: 0.25}),
]


def pick_length(rng: Random, progress: float) -> int:
    shares = next(shares for until, shares in CURRICULUM if progress < until)
    return rng.choices(list(shares), list(shares.values()))[0]


def optimizers(model, lr: float):
    """Muon turns the matrices, AdamW the rest."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


@torch.no_grad()
def new_model(tokenizer: Tokenizer) -> Qwen3ForCausalLM:
    """A start that can already look things up, roughly.

    Finding "parcel 17" takes two layers that work together: one tells every word which number it stands beside,
    the next matches that number with the one in the question. From a random start neither is of use without the
    other, and a model this small wanders for tens of millions of tokens before it has both. So the first two layers
    start out as those two; the other weights start at random, and all are trained.

        embedding   random part (which token) + shared part (any token) + number part (only numbers)
        layer 0     query: shared part; key: number part; near beats far    -> copies the last number's random part
        layer 1     query and key: the number that layer 0 put here         -> copies what stood beside that number
    """
    torch.manual_seed(SEED)
    model = Qwen3ForCausalLM(Qwen3Config(**MODEL, rope_theta=ROPE_THETA))
    hidden, size, heads, kv_heads = (
        MODEL[k] for k in ("hidden_size", "head_dim", "num_attention_heads", "num_key_value_heads")
    )
    shared, number = torch.eye(hidden)[0], torch.eye(hidden)[1]

    # Orthonormal directions that split the remaining space: `marks` say which number a word stands beside, 32 for
    # each KV head; `copies` carry which token a word is.
    free = torch.zeros(hidden, hidden)
    free[2:, 2:] = torch.linalg.qr(torch.randn(hidden - 2, hidden - 2))[0]
    marks = free[2 : 2 + kv_heads * size // 2].view(kv_heads, size // 2, hidden)
    copies = F.pad(free[2 + kv_heads * size // 2 :], (0, 0, 0, 2)).view(kv_heads, size, hidden)

    def per_query_head(weight: torch.Tensor) -> torch.Tensor:
        return weight.reshape(kv_heads, size, hidden).repeat_interleave(heads // kv_heads, 0).reshape(-1, hidden)

    embedding = model.model.embed_tokens.weight
    embedding.copy_(F.normalize(torch.randn(MODEL["vocab_size"], kv_heads * size) @ copies.view(-1, hidden), dim=1))
    embedding[:, 0] = 1.0
    embedding[[i for token, i in tokenizer.get_vocab().items() if token.isdigit()], 1] = 1.0

    # Rotary pairs (d, d + size / 2) turn slower as d grows: the medium ones tell near from far, the slow ones are
    # the same at any distance.
    medium = ((torch.arange(size) >= 5) & (torch.arange(size) < 10)).float()
    slow = torch.arange(size) % (size // 2) >= size // 4

    beside, match = (layer.self_attn for layer in model.model.layers[:2])
    beside.q_proj.weight.add_(torch.outer(medium.repeat(heads), shared))
    beside.k_proj.weight.add_(torch.outer(medium.repeat(kv_heads), number - 0.5 * shared))
    beside.q_norm.weight.fill_(1.3)
    beside.k_norm.weight.fill_(1.3)
    beside.v_proj.weight.copy_(copies.reshape(-1, hidden))
    beside.o_proj.weight.copy_(0.3 * per_query_head(F.pad(marks, (0, 0, 0, size // 2))).T)

    match.k_proj.weight.view(kv_heads, size, hidden)[:, slow] += marks
    match.q_proj.weight.add_(per_query_head(match.k_proj.weight))
    match.q_norm.weight.fill_(1.6)
    match.k_norm.weight.fill_(1.6)
    match.v_proj.weight.copy_(copies.reshape(-1, hidden))
    match.o_proj.weight.copy_(1.0 * per_query_head(copies).T)
    return model


def train(args, tokenizer: Tokenizer) -> Qwen3ForCausalLM:
    model = new_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    opts = optimizers(model, args.lr)
    for opt in opts:
        for group in opt.param_groups:
            group["initial_lr"] = group["lr"]
    rows, rng = Rows(tokenizer, SEED + 1), Random(SEED + 2)
    budget, seen, step, started = int(args.tokens * 1e6), 0, 0, time.time()
    recent: dict[int, list] = {}
    saved = started
    while seen < budget:
        progress = seen / budget
        length = pick_length(rng, progress)
        ids, answer_of = rows.batch(max(2, args.batch // length), length, easy=progress < EASY_UNTIL)
        warmup = min(1.0, (step + 1) / 30)
        scale = warmup * min(1.0, (1 - progress) / 0.4)  # flat, then down to zero
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = group["initial_lr"] * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
            spoken = answer_of[:, 1:] > 0
            logits = model.lm_head(hidden[:, :-1][spoken]).float()
        targets = ids[:, 1:][spoken]
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        seen, step = seen + ids.numel(), step + 1

        # Rows are never repeated, so the share of wholly right answers is a held-out score.
        wrong = torch.unique(answer_of[:, 1:][spoken][logits.argmax(-1) != targets]).numel()
        asked = torch.unique(answer_of[answer_of > 0]).numel()
        recent.setdefault(length, []).append((loss.item(), wrong, asked))
        if step % 50 == 0:
            took = time.time() - started
            report = " ".join(
                f"{n}:{sum(r[0] for r in v) / len(v):.3f}/{100 - 100 * sum(r[1] for r in v) / sum(r[2] for r in v):.1f}%"
                for n, v in sorted(recent.items())
            )
            print(f"step {step} {seen / 1e6:.2f}M {took:.0f}s {seen / took:.0f} tok/s  {report}", flush=True)
            recent = {}
        if time.time() - saved > 120:
            export(model, args.out)
            saved = time.time()
    return model


# --- The folder --------------------------------------------------------------


def export(model, folder: Path):
    """Writes bf16 weights and the small files around them, in the spelling that Qwen3 checkpoints have."""
    from safetensors.torch import save_file

    weights = {n: p.detach().to(torch.bfloat16).contiguous() for n, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end, im_end = tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(IM_END)

    def write(name: str, content: dict):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")

    write(
        "config.json",
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **MODEL,
            "rope_theta": ROPE_THETA,
            "rope_scaling": None,
            "use_sliding_window": False,
            "sliding_window": None,
            "bos_token_id": end,
            "eos_token_id": im_end,
            "pad_token_id": end,
            "torch_dtype": "bfloat16",
        },
    )
    write(
        "generation_config.json",
        {"bos_token_id": end, "pad_token_id": end, "eos_token_id": [im_end, end], "do_sample": False},
    )
    write(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": MODEL["max_position_embeddings"],
            "bos_token": None,
            "eos_token": IM_END,
            "pad_token": END_OF_TEXT,
            "unk_token": None,
            "additional_special_tokens": [IM_START, IM_END],
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--tokens", type=float, default=18, help="millions of tokens to train on")
    parser.add_argument("--batch", type=int, default=2048, help="tokens in a step (at least two rows)")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = train_tokenizer(args.out)
    model = train(args, tokenizer)
    export(model, args.out)


if __name__ == "__main__":
    main()
