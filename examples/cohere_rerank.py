# %% [markdown]
# # Legal holdings: a reranker fine-tuned through Cohere's API
#
# A court cites an earlier case and says in a few words what was held there. Which of five holdings belongs to
# the text around the citation? The base model is asked first; then a reranker is fine-tuned on a few hundred
# such texts and asked the same. Every call is that of the `cohere` SDK; only `base_url` says that the server
# is your own.
#
# Open this file as a notebook in VS Code or Jupyter, or run it from top to bottom:
# `python examples/cohere_rerank.py`

# %%
import json
import os
import time
from pathlib import Path
from statistics import mean

import cohere
import matplotlib.pyplot as plt
from cohere.finetuning import BaseModel, FinetunedModel, Settings

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:3000")
# A folder with train.jsonl (256 rows), valid.jsonl (154) and test.jsonl (290), each row with a query, its
# five docs, and in label the number of the right one, counted from 0. They are a part of CaseHOLD, which is
# public:
# https://huggingface.co/datasets/casehold/casehold
DATA = Path(os.environ.get("DATA", "data/casehold"))
# Of the test file, for a quick look: to train on there are no more queries than there must be.
ROWS = int(os.environ.get("ROWS", "0")) or None
WORK = Path(os.environ.get("WORK", "runs/examples/cohere_rerank"))  # what this notebook writes
WORK.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The only change
#
# The hosted notebook had `cohere.Client("YOUR API KEY")` here. Any key will do, unless the server asks for
# one of its own.

# %%
co = cohere.Client(os.environ.get("CO_API_KEY", "any key"), base_url=BASE_URL)

# %% [markdown]
# ## Step 1: prepare the data
#
# What is uploaded has on each line a query, the passages that are relevant, and hard negatives: passages that
# look relevant and are not.

# %%
parts = {}
for name in ("train", "valid", "test"):
    with (DATA / f"{name}.jsonl").open(encoding="utf-8") as file:
        parts[name] = [json.loads(line) for line in file]
    print(f"{name}: {len(parts[name])} queries")
parts["test"] = parts["test"][:ROWS]

for name in ("train", "valid"):
    with (WORK / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for row in parts[name]:
            relevant = row["docs"][row["label"]]
            others = [doc for doc in row["docs"] if doc != relevant]
            line = {"query": row["query"], "relevant_passages": [relevant], "hard_negatives": others}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

# %% [markdown]
# ## Step 2: upload and review
#
# Training and validation rows make one dataset. `co.wait` returns when it has been validated, and raises an
# error if its rows cannot be used.

# %%
with (WORK / "train.jsonl").open("rb") as train, (WORK / "valid.jsonl").open("rb") as valid:
    created = co.datasets.create(name="casehold", data=train, eval_data=valid, type="reranker-finetune-input")
dataset = co.wait(created).dataset
print(dataset.validation_status)
print(dataset.metrics.finetune_dataset_metrics.reranker_data_metrics)
for warning in dataset.validation_warnings or []:
    print(f"- {warning}")

# %% [markdown]
# ## Step 3: ask the base model
#
# The holding that is right should stand first. `accuracy@1` is how often it does; `mrr@10` the mean of one
# over its place.


# %%
def places(model):
    """Where the right holding of each test query stands in the model's order, 1 being the first."""
    found = []
    for row in parts["test"]:
        answer = co.rerank(model=model, query=row["query"], documents=row["docs"])
        order = [result.index for result in answer.results]
        found.append(order.index(row["label"]) + 1)
    return found


def measured(found):
    """The figures of these places."""
    return {
        "accuracy@1": mean(place == 1 for place in found),
        "mrr@10": mean(1 / place if place <= 10 else 0 for place in found),
    }


before = measured(places("rerank-english-v3.0"))
print(before)

# %% [markdown]
# ## Step 4: fine-tune
#
# The model goes from `STATUS_QUEUED` by way of `STATUS_FINETUNING` to `STATUS_READY`.

# %%
request = FinetunedModel(
    name="casehold",
    settings=Settings(base_model=BaseModel(base_type="BASE_TYPE_RERANK", name="english"), dataset_id=dataset.id),
)
model = co.finetuning.create_finetuned_model(request=request).finetuned_model
while model.status not in ("STATUS_READY", "STATUS_FAILED"):
    time.sleep(3)
    model = co.finetuning.get_finetuned_model(model.id).finetuned_model
    latest = co.finetuning.list_training_step_metrics(model.id, page_size=1).step_metrics
    print(model.status, *(f"step {step.step_number}: loss {step.metrics['loss']:.3f}" for step in latest))
if model.status == "STATUS_FAILED":
    raise SystemExit("the fine-tuning failed; the server's log says why")

# %% [markdown]
# ## Step 5: ask the fine-tuned model
#
# It is called by its id and `-ft`. Scores are probabilities, so that a threshold can be set on them.

# %%
row = parts["test"][0]
answer = co.rerank(model=model.id + "-ft", query=row["query"], documents=row["docs"], top_n=3, return_documents=True)
print(row["query"])
for result in answer.results:
    right = "right" if result.index == row["label"] else ""
    print(f"  {result.relevance_score:6.1%} {right:6} {result.document.text}")

after = measured(places(model.id + "-ft"))

# %% [markdown]
# ## Step 6: before and after

# %%
figures = {f"{name} before": value for name, value in before.items()} | after
plt.figure()
plt.bar([f"{name}\nbefore" for name in before], before.values())
plt.bar([f"{name}\nafter" for name in after], after.values())
plt.ylim(0, 1)
plt.savefig(WORK / "before_and_after.png")
(WORK / "figures.json").write_text(json.dumps(figures))
for name in after:
    print(f"{name}: {before[name]:.4f} before, {after[name]:.4f} after")
