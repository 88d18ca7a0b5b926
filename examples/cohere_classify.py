# %% [markdown]
# # Airline queries: a classifier fine-tuned through Cohere's API
#
# What a traveller wants, told from one sentence: a flight, a fare, an aircraft. 800 labelled queries of the
# Air Travel Information System are uploaded and validated, a classifier is fine-tuned on them, and 200 others
# measure it. Every call is that of the `cohere` SDK; only `base_url` says that the server is your own.
#
# Open this file as a notebook in VS Code or Jupyter, or run it from top to bottom:
# `python examples/cohere_classify.py`

# %%
import csv
import json
import os
import time
from collections import Counter
from pathlib import Path

import cohere
import matplotlib.pyplot as plt
from cohere.finetuning import BaseModel, FinetunedModel, Settings
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, f1_score
from sklearn.model_selection import train_test_split

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:3000")
# 1,000 rows of query and intent without a header. They are public: atis_subset.csv in notebooks/data of
# https://github.com/cohere-ai/cohere-developer-experience
DATA = Path(os.environ.get("DATA", "data/atis/atis_subset.csv"))
ROWS = int(os.environ.get("ROWS", "0")) or None  # for a quick look; at least 50, as 40 are the least to train on
WORK = Path(os.environ.get("WORK", "runs/examples/cohere_classify"))  # what this notebook writes
WORK.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The only change
#
# The hosted notebook had `cohere.ClientV2("YOUR API KEY")` here. Any key will do, unless the server asks for
# one of its own.

# %%
co = cohere.ClientV2(os.environ.get("CO_API_KEY", "any key"), base_url=BASE_URL)

# %% [markdown]
# ## Step 1: prepare the data
#
# A fifth is kept back to test on. What is uploaded has a JSON object with `text` and `label` on each line.

# %%
with DATA.open(newline="", encoding="utf-8") as file:
    rows = list(csv.reader(file))[:ROWS]
train, test = train_test_split(rows, test_size=len(rows) // 5, random_state=21)
print(f"{len(train)} rows to train on, {len(test)} to test on")
for intent, count in Counter(intent for _, intent in train).most_common():
    print(f"{count:6} {intent}")

with (WORK / "train.jsonl").open("w", encoding="utf-8") as file:
    for query, intent in train:
        file.write(json.dumps({"text": query, "label": intent}) + "\n")

# %% [markdown]
# ## Step 2: upload and review
#
# The dataset is validated after the upload. `co.wait` returns when that has ended, and raises an error if
# rows cannot be used; what was noticed besides stands in the warnings.

# %%
with (WORK / "train.jsonl").open("rb") as file:
    created = co.datasets.create(name="atis", data=file, type="single-label-classification-finetune-input")
dataset = co.wait(created).dataset
print(dataset.validation_status)
for warning in dataset.validation_warnings or []:
    print(f"- {warning}")

# %% [markdown]
# ## Step 3: fine-tune
#
# The model goes from `STATUS_QUEUED` by way of `STATUS_FINETUNING` to `STATUS_READY`; meanwhile the figures
# of its latest step can be asked for.

# %%
request = FinetunedModel(
    name="atis",
    settings=Settings(base_model=BaseModel(base_type="BASE_TYPE_CLASSIFICATION"), dataset_id=dataset.id),
)
model = co.finetuning.create_finetuned_model(request=request).finetuned_model
while model.status not in ("STATUS_READY", "STATUS_FAILED"):
    time.sleep(3)
    model = co.finetuning.get_finetuned_model(model.id).finetuned_model
    latest = co.finetuning.list_training_step_metrics(model.id, page_size=1).step_metrics
    print(model.status, *(f"step {step.step_number}: loss {step.metrics['loss']:.3f}" for step in latest))
if model.status == "STATUS_FAILED":
    raise SystemExit("the fine-tuning failed; the server's log says why")

# %%
steps = co.finetuning.list_training_step_metrics(model.id, page_size=1000).step_metrics[::-1]
ends = [step for step in steps if "train_loss" in step.metrics]  # of an epoch: measured on rows that were kept back
others = [step for step in steps if step not in ends]
plt.figure()
for name, some in (("rows of the step", others), ("rows kept back", ends)):
    plt.plot([step.step_number for step in some], [step.metrics["loss"] for step in some], "o-", label=name)
plt.legend()
plt.xlabel("step")
plt.ylabel("loss")
plt.savefig(WORK / "loss.png")

# %% [markdown]
# ## Step 4: classify
#
# A fine-tuned model is called by its id and `-ft`. One request takes up to 96 texts.

# %%
BATCH = 90
answers = []
for i in range(0, len(test), BATCH):
    batch = [query for query, _ in test[i : i + BATCH]]
    answers.extend(co.classify(model=model.id + "-ft", inputs=batch).classifications)
predicted = [answer.predictions[0] for answer in answers]

# %% [markdown]
# Every label has a probability, not only the one that is answered. These are the queries the model is least
# sure of:

# %%
for answer in sorted(answers, key=lambda answer: answer.confidences[0])[:3]:
    print(answer.input)
    for label, found in sorted(answer.labels.items(), key=lambda item: -item[1].confidence)[:3]:
        print(f"  {found.confidence:6.1%} {label}")

# %% [markdown]
# ## Step 5: evaluate

# %%
true = [intent for _, intent in test]
figures = {
    "accuracy": accuracy_score(true, predicted),
    "f1_weighted": f1_score(true, predicted, average="weighted"),
}
ConfusionMatrixDisplay.from_predictions(true, predicted, xticks_rotation="vertical")
plt.savefig(WORK / "confusion.png", bbox_inches="tight")
(WORK / "figures.json").write_text(json.dumps(figures))
print(f"Accuracy: {100 * figures['accuracy']:.2f}")
print(f"F1-score: {100 * figures['f1_weighted']:.2f}")
