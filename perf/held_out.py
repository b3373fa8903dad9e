"""Texts that `models/baton-courier` never saw, for the perplexity of a weight format.

    python perf/held_out.py /tmp/held-out.jsonl        # needs what models/requirements.txt names
    cargo run --release -p baton-perf --example perplexity -- models/baton-courier /tmp/held-out.jsonl

Conversations come from the same generator as the training text, with a seed
that training never used. A line is {"tokens": [...], "scored": [...]}; scored
are the answers, as the rest is drawn at random.
"""

import json
import sys
from pathlib import Path

MODELS = Path(__file__).parent.parent / "models"
sys.path.insert(0, str(MODELS))

from tokenizers import Tokenizer  # noqa: E402
from train_courier import Rows  # noqa: E402

SEED = 555_000_003
LENGTHS = [256, 512, 1024, 2048]
EACH = 60


def main():
    rows = Rows(Tokenizer.from_file(str(MODELS / "baton-courier" / "tokenizer.json")), SEED)
    with open(sys.argv[1], "w") as out:
        for length in LENGTHS * EACH:
            tokens, answer_of = rows.row(length, easy=False)
            out.write(json.dumps({"tokens": tokens, "scored": [a > 0 for a in answer_of]}) + "\n")


if __name__ == "__main__":
    main()
